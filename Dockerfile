# fedexp on a CPU, with what its tests need.
#
#   docker build --tag fedexp .
#   docker run --rm fedexp                                         the main job, on embedded digits
#   docker run --rm fedexp python scripts/start.py test            lint, types, documentation, tests
#   docker run --rm -v "$PWD/outputs:/fedexp/outputs" fedexp fedexp run aggregator=median
#
# 64 MB of shared memory, which is what Docker gives, and two cores are enough (--shm-size 64m --cpus 2).
FROM python:3.12-slim

WORKDIR /fedexp
ENV PATH=/fedexp/.venv/bin:$PATH PIP_NO_CACHE_DIR=1

# torch for processors, first: it is large, and changes less often than what is below.
RUN python -m venv .venv && .venv/bin/pip install torch torchvision \
    --index-url https://download.pytorch.org/whl/cpu
COPY . .
RUN python -c "import sys; sys.path.insert(0, 'scripts'); import start; start.prepare('[dev]')"

CMD ["python", "scripts/start.py", "run"]
