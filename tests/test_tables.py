"""Tables from files and data frames: what is read alike, and what is refused, each in one sentence."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cvae.tables import read_table

CSV = "name,age,score,member\nAnn,30,1.5,true\nBen,,2.25,false\n,41,NA,\nDee,28,NaN,true\n"
FRAME = pl.DataFrame(
    {
        "name": ["Ann", "Ben", None, "Dee"],
        "age": [30, None, 41, 28],
        "score": [1.5, 2.25, None, None],
        "member": [True, False, None, True],
    }
)


def write(folder, text, name="table.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_files_and_frames_are_read_alike(tmp_path):
    path = write(tmp_path, CSV)
    FRAME.write_parquet(tmp_path / "table.parquet")
    for source in (path, str(path), tmp_path / "table.parquet", FRAME, FRAME.lazy()):
        assert_frame_equal(read_table(source), FRAME)
    assert_frame_equal(read_table(write(tmp_path, "\ufeff" + CSV, "run[1].csv")), FRAME)  # a byte-order mark, a glob


def test_nan_is_a_missing_value(tmp_path):
    frame = pl.DataFrame({"a": [1.0, float("nan"), None], "b": pl.Series([0.5, float("nan"), 1.0], dtype=pl.Float32)})
    assert read_table(frame)["a"].to_list() == [1.0, None, None]
    assert read_table(frame)["b"].null_count() == 1


def test_decimals_are_numbers():
    frame = pl.DataFrame({"price": pl.Series(["1.25", "3.50"]).cast(pl.Decimal(10, 2))})
    assert read_table(frame)["price"].to_list() == [1.25, 3.5]


def test_pandas_frames_keep_types_and_missing_values():
    frame = pd.DataFrame(
        {
            "float": [0.5, np.nan, 2.0],
            "int": [1, 2, 3],
            "small": np.array([1, 2, 3], np.uint8),
            "nullable": pd.array([1, None, 3], "Int32"),
            "nullable float": pd.array([1.5, None, 3], "Float64"),
            "flag": [True, False, True],
            "nullable flag": pd.array([True, None, False], "boolean"),
            "text": ["a", None, "b"],
            "object": np.array(["a", None, "b"], object),
            "mark": pd.Categorical(["low", None, "high"], ["low", "middle", "high"], ordered=True),
            "year": pd.Categorical([2007, 2008, None]),
            "day": pd.to_datetime(["2020-01-01", None, "2020-01-03"]),
            7: [None, None, None],
        },
        index=[5, 6, 7],
    )
    table = read_table(frame)
    expected = {
        "float": pl.Float64, "int": pl.Int64, "small": pl.UInt8, "nullable": pl.Int32, "nullable float": pl.Float64,
        "flag": pl.Boolean, "nullable flag": pl.Boolean, "text": pl.String, "object": pl.String,
        "mark": pl.Enum(["low", "middle", "high"]), "year": pl.Int64, "7": pl.Null,
    }  # fmt: skip
    assert {name: table.schema[name] for name in expected} == expected
    assert table["day"].dtype.is_temporal()
    missing = {name: table[name].null_count() for name in table.columns}
    assert missing == dict.fromkeys(table.columns, 1) | {"int": 0, "small": 0, "flag": 0, "7": 3}
    assert table["nullable"].to_list() == [1, None, 3]
    assert table["mark"].to_list() == ["low", None, "high"]
    assert table["day"][0] == datetime.datetime(2020, 1, 1)


def test_a_column_of_numbers_and_many_words_is_one_of_words(tmp_path):
    tickets = ["113803", "PC 17599", "330877", "A/5 21171", "349909"] * 4
    path = write(tmp_path, "ticket,fare\n" + "".join(f"{ticket},7\n" for ticket in tickets))
    assert read_table(path)["ticket"].to_list() == tickets


def test_markers_of_missing_cells_among_numbers_are_no_words(tmp_path):
    path = write(tmp_path, "a,b,c,d,e\n1,?,x,n/a,1\n-,.,-,?,x\n3,0.5,y,n/a,2\n--,1,-,?,-\n,n/a,z,n/a,y\n")
    a, b, c, d, e = read_table(path)
    assert (a.dtype, a.to_list()) == (pl.Int64, [1, None, 3, None, None])
    assert b.to_list() == [None, None, 0.5, 1.0, None]
    assert c.to_list() == ["x", "-", "y", "-", "z"]
    assert d.to_list() == ["n/a", "?", "n/a", "?", "n/a"]
    assert e.to_list() == ["1", "x", "2", "-", "y"]


def test_types_are_those_of_all_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("cvae.tables.FIRST_LINES", 2)
    path = write(tmp_path, "a,b,c,d\n1,,2,x\n2,,3,y\n2.5,7,4,\n,8,5,z\n")
    expected = {"a": [1, 2, 2.5, None], "b": [None, None, 7, 8], "c": [2, 3, 4, 5], "d": ["x", "y", None, "z"]}
    assert_frame_equal(read_table(path), pl.DataFrame(expected, strict=False))
    path = write(tmp_path, "a,b\n1,2\n3,4\nx,5\n7,8\n")
    with pytest.raises(ValueError, match="got 'x' at row 2"):
        read_table(path)


def test_commas_inside_quotes_separate_no_fields(tmp_path):
    path = write(tmp_path, 'a,b\n"x, y",1\n"say ""no""",\n')
    assert read_table(path)["a"].to_list() == ["x, y", 'say "no"']
    with pytest.raises(ValueError, match="got 1 in line 3"):
        read_table(write(tmp_path, 'a,b\nx,1\n"y, z"\n'))


def test_quotes_in_names_are_not_doubled(tmp_path):
    path = write(tmp_path, '"say ""no""","x, y",\n1,2,3\n')
    assert read_table(path).columns == ['say "no"', "x, y", ""]


def test_blank_lines_are_no_rows(tmp_path):
    table = read_table(write(tmp_path, "a,b\n1,2\n\n3,\n\n"))
    assert table.rows() == [(1, 2), (3, None)]
    assert read_table(write(tmp_path, "a,b\n1,2\n,\n3,4\n")).height == 3


BAD_FILES = {
    "no names": ("1,2\n3,4\n", r"\.csv must start with a line of names, got the numbers \['1', '2'\]$"),
    "mixed": (
        "a,b\n1,2\n2,3\nx,4\n5,6\n",
        r"^column 'a' of .*\.csv must hold numbers only, or words only .*, got 'x' at row 2$",
    ),
    "long line": ("a,b\n1,2\n3,4,5\n", r"\.csv must have 2 fields in every line, .* of names, got 3 in line 3$"),
    "short line": ("a,b\n1,2\n3\n", r"\.csv must have 2 fields in every line, .* of names, got 1 in line 3$"),
    "empty": ("", r"\.csv must start with a line of names, got an empty file$"),
    "names alone": ("a,b\n", r"^the table must have columns and rows, got shape \(0, 2\)$"),
    "twice": ("a,b,a\n1,2,3\n", r"\.csv must have columns of different names, got \['a'\] twice$"),
    "semicolons": ("a;b\n1;2\n", r"\.csv must be separated by commas, got the first line 'a;b'$"),
    "tabs": ("a\tb\n1\t2\n", r"\.csv must be separated by commas, got the first line 'a\\tb'$"),
    "latin-1": ("a,b\né,2\n".encode("latin-1"), r"\.csv must be UTF-8 text \(save it as such\), got .* byte 0xe9"),
    "quote": ('a,b\n"x,1\n', r"\.csv must have 2 fields in every line, .*, got 1 in line 2$"),
    "binary": (b"\x00\x01\x02\xff", r"\.csv must be "),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_csv_files_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_table(write(tmp_path, text))
    assert "\n" not in str(caught.value)


BAD_SOURCES = {
    "nothing": (lambda folder: folder / "none.csv", r"none\.csv must be a \.csv or \.parquet file, got no such file$"),
    "folder": (lambda folder: folder, r"must be a \.csv or \.parquet file, got the suffix ''$"),
    "suffix": (lambda folder: write(folder, CSV, "a.xlsx"), r"a\.xlsx must be .*, got the suffix '\.xlsx'$"),
    "no parquet": (lambda folder: write(folder, CSV, "a.parquet"), r"a\.parquet must be a readable table, got "),
    "list": (lambda _: [1, 2], "^data must be a path, or a pandas or polars data frame, got a list$"),
    "array": (lambda _: np.ones((2, 2)), "^data must be a path, or .*, got a ndarray$"),
    "empty frame": (lambda _: pl.DataFrame(), r"^the table must have columns and rows, got shape \(0, 0\)$"),
    "names twice": (
        lambda _: pd.DataFrame(np.ones((2, 2)), columns=["a", "a"]),
        r"^data must have columns of different names, got \['a'\] twice$",
    ),
    "mixed": (
        lambda _: pd.DataFrame({"a": [None, 1, "x", 2]}, dtype=object),
        r"^column 'a' must hold numbers only, or words only .*, got 'x' at row 2$",
    ),
}


@pytest.mark.parametrize(("source", "message"), BAD_SOURCES.values(), ids=BAD_SOURCES.keys())
def test_bad_sources_are_refused(tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        read_table(source(tmp_path))
