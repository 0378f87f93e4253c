"""A folder of a person's own images: a key that would say nothing is refused."""

import pytest

from fedexp.core.checks import InputError
from fedexp.data.columns import Columns
from fedexp.data.image_files import listed


def test_a_column_of_a_manifest_that_is_not_there_is_refused(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").touch()
    (tmp_path / "list.csv").write_text("path,diagnosis\na/1.png,ill\nb/1.png,well\n")
    named = Columns(label="diagnosis")
    with pytest.raises(InputError, match=r"label=diagnosis: is a column of a manifest, and .* has"):
        listed(str(tmp_path), None, named)
    assert set(listed(str(tmp_path), None, Columns()).frame["label"]) == {"a", "b"}
    assert set(listed(str(tmp_path), "list.csv", named).frame["label"]) == {"ill", "well"}


def test_a_site_or_patient_that_is_missing_by_a_word_is_missing(tmp_path):
    (tmp_path / "1.png").touch()
    (tmp_path / "2.png").touch()
    rows = "path,label,site,patient\n1.png,none,N/A,NA\n2.png,well,north,p2\n"
    (tmp_path / "manifest.csv").write_text(rows)
    frame = listed(str(tmp_path), None, Columns()).frame
    assert frame["site"].tolist() == ["", "north"]
    assert frame["subject"].tolist() == ["", "p2"]
    assert frame["label"].tolist() == ["none", "well"]
