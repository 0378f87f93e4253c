"""A person's own table: what becomes of numbers, words and holes, by hand."""

import numpy as np
import pandas as pd
import pytest

from fedexp.core.checks import InputError
from fedexp.data.table import Table, _drop


def table(path, **keys):
    plain = dict.fromkeys(("site", "subject", "official"))
    shares = {"split": "auto", "validation_share": 0.1, "test_share": 0.2, "split_seed": 0}
    given = {"name": "t", "path": str(path), "label": "y", "drop": []} | plain | shares | keys
    return Table(**given)


def loaded(path, **keys):
    return table(path, **keys)(None)


@pytest.fixture
def file(tmp_path):
    rows = [
        "age;sex;y;split",
        "10;f;ill;train",
        "20;m;well;train",
        ";f;ill;train",
        "60;m;well;train",
        "80;x;ill;val",
        "40;;well;test",
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    return tmp_path / "t.csv"


def test_numbers_words_and_holes_by_hand(file):
    dataset = loaded(file)
    # The training rows' median is 20, so they are 10, 20, 20, 60: mean 27.5, deviation 19.2029.
    ages = (np.array([10, 20, 20, 60, 80, 40]) - 27.5) / np.sqrt(368.75)
    x = np.concatenate([part.x.numpy() for part in dataset.parts.values()])
    assert x[:, 0] == pytest.approx(ages, rel=1e-6)
    assert x[:, 1:].tolist() == [[1, 0], [0, 1], [1, 0], [0, 1], [0, 0], [0, 0]]
    assert x.dtype == np.float32
    assert dataset.class_names == ("ill", "well")
    assert dataset.train.y.tolist() == [0, 1, 0, 1]
    assert any("no training row has" in r and "x" in r for r in dataset.remarks)
    assert "missing numbers are the training rows' median: age (1)" in dataset.remarks


def test_what_is_dropped_is_not_learned_from(file):
    assert loaded(file, drop=["sex"]).input_shape == (1,)
    with pytest.raises(InputError, match=r"drop=sexe: t\.csv has no such column"):
        loaded(file, drop=["sexe"])
    with pytest.raises(InputError, match=r"drop=split: is dataset\.official, which is used"):
        loaded(file, drop=["split"])


def test_one_column_is_one_thing(file):
    with pytest.raises(InputError, match=r"site=y: is label already: name another column"):
        loaded(file, site="y")
    rows = [f"{k};{'ab'[k % 2]}" for k in range(40)]
    file.write_text("\n".join(["n;site", *rows]))  # which is looked for as the site as well
    dataset = loaded(file, label="site")
    assert (dataset.class_names, dataset.site_names) == (("a", "b"), ())


def test_a_patient_called_na_is_nobody(tmp_path):
    words = ["NA", "nan", "null", "", "None", "?"]
    rows = [f"{k},{words[k % 6]},{'north' if k % 3 else 'N/A'},{'ab'[k % 2]}" for k in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["n,patient,site,y", *rows[:-1], "59,p7,north,none"]))
    dataset = loaded(tmp_path / "t.csv")
    everybody = np.concatenate([part.subject.numpy() for part in dataset.parts.values()])
    assert sorted(set(everybody.tolist())) == [-1, 0]
    assert dataset.site_names == ("north",)
    assert all(len(part) for part in dataset.parts.values())
    said = "\n".join(dataset.remarks)
    assert "class none counts as a class;" in said
    assert "59 examples have no patient" in said
    assert "20 examples have no site" in said


def test_what_a_run_refuses_is_no_clean_table(tmp_path):
    path = tmp_path / "t.csv"
    for column, reason in (
        ([k * 1e300 for k in range(40)], "column n holds 1e+300 in t.csv line 3"),
        ([f"name {k}" for k in range(40)], "no column is left to learn from: column n is left out"),
    ):
        pd.DataFrame({"n": column, "y": ["a", "b"] * 20}).to_csv(path, index=False)
        faults = table(path).survey(None).faults
        assert [fault[: len(reason)] for fault in faults] == [reason]
        with pytest.raises(InputError, match=r"path=.*t\.csv: "):
            loaded(path)


def test_a_parquet_file_is_read_by_its_own_types(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    path.touch()
    n = 40
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None] * (n // 2), dtype="Int64"),
            "b": np.arange(n) % 2 == 0,
            "c": pd.Categorical(["p", "q"] * (n // 2)),
            "f": np.where(np.arange(n) % 3, np.arange(n) / 2, np.inf),
            "y": np.arange(n) % 4 // 2,
        }
    )
    monkeypatch.setattr(pd, "read_parquet", lambda place: frame)
    dataset = loaded(path)
    assert dataset.input_shape == (4,)  # b, f and p, q; n is 1 or missing, and left out
    assert np.isfinite(dataset.train.x.numpy()).all()


def test_without_a_reader_of_parquet_it_says_what_to_install(tmp_path, monkeypatch):
    def missing(place):
        raise ImportError("no pyarrow")

    (tmp_path / "t.parquet").touch()
    monkeypatch.setattr(pd, "read_parquet", missing)
    with pytest.raises(InputError, match="needs pyarrow: pip install pyarrow"):
        loaded(tmp_path / "t.parquet")


def test_an_own_number_for_every_row_is_remarked_upon(tmp_path):
    rows = [f"{1000 + i},{i % 7},{i / 2},{i % 2}" for i in range(100)]
    (tmp_path / "t.csv").write_text("\n".join(["id,age,dose,y", *rows]))
    told = [word for word in table(tmp_path / "t.csv").survey(None).remarks if "names them" in word]
    assert told == [
        "column id is learned from, and is another whole number in every training row: "
        "dataset.drop=[id] if it only names them"
    ]


def test_of_very_many_classes_the_largest_are_counted_one_by_one(tmp_path):
    classes = [k for k in range(33) for _ in range(3 + (k == 2) - (k > 30))]
    rows = [f"{i % 7},c{k}" for i, k in enumerate(classes)]
    (tmp_path / "t.csv").write_text("\n".join(["age,y", *rows]))
    lines = table(tmp_path / "t.csv").survey(None).lines
    told = [line.split()[0] for line in lines if line.split()[-1].isdigit()]
    assert told == [f"c{k}" for k in range(30)]
    assert "and 3 more classes, of 2 to 3 examples" in lines


def test_a_label_that_is_an_amount_is_remarked_upon(tmp_path):
    rows = [f"{i % 7},{i % 4 / 4}" for i in range(80)]
    (tmp_path / "t.csv").write_text("\n".join(["age,y", *rows]))
    told = table(tmp_path / "t.csv").survey(None).remarks
    assert told == (
        "each of 4 labels counts as a class, 0.25 among them; amounts are not learned: cut them "
        "into ranges first, if these are some",
    )


def test_rows_of_a_parquet_file_are_no_lines(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").touch()
    frame = pd.DataFrame({"x": np.arange(40) / 4, "y": ["", *("ab" * 20)][:40]})
    monkeypatch.setattr(pd, "read_parquet", lambda place: frame)
    assert table(tmp_path / "t.parquet").survey(None).faults == ("t.parquet row 1 has no label",)


def test_values_that_no_column_is_named_for_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    rows = [f"{k},{k % 7},{'ab'[k % 2]}" for k in range(40)]
    path.write_text("\n".join(["n,y", *rows]))  # as write.table of R puts its row names
    with pytest.raises(InputError, match=r"t\.csv, line 2: has 3 values, and the first line names"):
        loaded(path)
    path.write_text("\n".join(["id,n,y", *[f"{row}, " for row in rows]]))
    assert loaded(path, drop=["id"]).class_names == ("a", "b")  # which are no values


def test_the_named_index_of_a_parquet_file_is_a_column(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").touch()
    frame = pd.DataFrame({"x": np.arange(40) / 4, "y": ["a", "b"] * 20})
    index = pd.MultiIndex.from_arrays([np.arange(40) // 4, np.arange(40)], names=["patient", None])
    monkeypatch.setattr(pd, "read_parquet", lambda place: frame.set_index(index))
    dataset = loaded(tmp_path / "t.parquet")
    subjects = [set(part.subject.tolist()) for part in dataset.parts.values()]
    assert sum(map(len, subjects)) == len(set.union(*subjects)) == 10
    assert dataset.input_shape == (1,)


def test_lists_in_a_parquet_file_are_words(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").touch()
    lists = [np.arange(k % 3) for k in range(40)]
    frame = pd.DataFrame({"codes": lists, "y": ["a", "b"] * 20})
    monkeypatch.setattr(pd, "read_parquet", lambda place: frame)
    assert loaded(tmp_path / "t.parquet").input_shape == (3,)


def test_a_column_of_numbers_that_counts_as_words_is_remarked_upon(tmp_path):
    path = tmp_path / "t.csv"
    rows = [f"{36 + k % 9 / 10};{k % 60};{'ab'[k % 2]}".replace(".", ",") for k in range(99)]
    path.write_text("\n".join(["temp;age;y", *rows, "37,5;unknown;a"]))
    told = [word for word in table(path).survey(None).remarks if "counts as words" in word]
    assert told == [
        "column temp counts as words, not as numbers: t.csv line 2 has 36,0; write decimals with a "
        "point",
        "column age counts as words, not as numbers: t.csv line 101 has unknown",
    ]


def test_how_a_column_is_left_out_can_be_typed_whatever_it_is_called():
    assert _drop("id") == "dataset.drop=[id]"
    assert _drop("Unnamed: 0") == """'dataset.drop=["Unnamed: 0"]'"""
