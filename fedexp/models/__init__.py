"""Models: plain `nn.Module`s that take `input_shape` (channels, height, width) and `num_classes`.

Every one is a constructor, named in `conf/model/`; there is no wrapper class. Weights are PyTorch's
default initialisation under the run's own seed.
"""

from fedexp.models.convolutional import cnn, small_cnn
from fedexp.models.lenet import lenet
from fedexp.models.linear import logistic, mlp
from fedexp.models.residual import resnet18

__all__ = ["cnn", "lenet", "logistic", "mlp", "resnet18", "small_cnn"]
