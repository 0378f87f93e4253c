"""For tests of reports: only who looks at a picture has it drawn."""

from tests.support.pictures import blank_pictures, real_pictures  # noqa: F401
