"""Tables encoded into arrays on disk: the same schema and arrays as from memory, and files that are damaged."""

import numpy as np
import polars as pl
import pytest

import cvae
from cvae.data import parquet, scan_table, stream_table

N = 90
OPTIONS = {"conditions": ("town",), "optional": ("age",)}


@pytest.fixture(scope="module")
def table():
    """Words, decimals, counts, two-valued and missing cells."""
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "town": rng.choice(["Bern", "Ulm", "Graz"], N),
            "age": np.where(np.arange(N) % 7 == 0, np.nan, rng.integers(20, 80, N) / 2),
            "visits": rng.poisson(3, N),
            "price": [None if row == 50 else round(float(value), 2) for row, value in enumerate(rng.gamma(2, 20, N))],
            "paid": rng.random(N) < 0.4,
            "name": [f"person {row}" for row in range(N)],
        }
    ).with_columns(pl.col("price").cast(pl.Decimal(8, 2)))


@pytest.fixture
def folder(table, tmp_path):
    """The table in three files."""
    for number, rows in enumerate((table[:31], table[31:33], table[33:])):
        rows.write_parquet(tmp_path / f"{number}.parquet")
    return tmp_path


@pytest.mark.parametrize("cells", [40, 2**20], ids=["pieces", "whole"])
def test_schema_and_arrays_are_those_of_the_table_in_memory(table, folder, cells, monkeypatch):
    monkeypatch.setattr(parquet, "PIECE_CELLS", cells)
    scanned = scan_table(folder)
    schema = cvae.schema.infer(scanned, **OPTIONS)
    assert schema == cvae.schema.infer(table, **OPTIONS)
    x, c = stream_table(scanned, schema, folder / "encoded")
    expected_x, expected_c = schema.encode(table)
    np.testing.assert_array_equal(x[:], expected_x)
    assert list(c) == list(expected_c) == ["town", "age"]
    for name, values in expected_c.items():
        np.testing.assert_array_equal(c[name][:], values)
        assert (c[name].dtype, c[name].shape) == (values.dtype, values.shape)


def test_what_was_encoded_before_is_read(table, folder, monkeypatch):
    scanned, schema = scan_table(folder), cvae.schema.infer(table, **OPTIONS)
    first, _ = stream_table(scanned, schema, folder / "encoded")
    monkeypatch.setattr(parquet, "_encode", None)
    second, _ = stream_table(scanned, schema, folder / "encoded")
    np.testing.assert_array_equal(first[:], second[:])


def test_a_folder_of_another_table_or_without_an_array_is_refused(table, folder):
    schema = cvae.schema.infer(table, **OPTIONS)
    stream_table(scan_table(folder), schema, folder / "encoded")
    for other in (cvae.schema.infer(table, conditions=("town", "paid")), cvae.schema.infer(table)):
        with pytest.raises(ValueError, match="encoded must be the whole arrays of this table and schema"):
            stream_table(scan_table(folder), other, folder / "encoded")
    (folder / "0.parquet").unlink()
    with pytest.raises(ValueError, match=r"this table and schema .*remove the folder.*, got those of another one"):
        stream_table(scan_table(folder), schema, folder / "encoded")
    (folder / "encoded" / "x.npy").unlink()
    with pytest.raises(ValueError, match=r"this table and schema .*, got c_0, c_1 alone"):
        stream_table(scan_table(folder), schema, folder / "encoded")


def test_a_row_that_does_not_suit_is_named_and_leaves_nothing_behind(table, folder, monkeypatch):
    monkeypatch.setattr(parquet, "PIECE_CELLS", 40 * 5)
    schema = cvae.schema.infer(table, **OPTIONS)
    table[:50].with_columns(town=pl.lit("Bern")).write_parquet(folder / "0.parquet")
    table[:5].with_columns(town=pl.lit("Rom")).write_parquet(folder / "1.parquet")
    message = "column 'town' must be one of 'Bern', 'Graz', 'Ulm', .* got 'Rom' at row 50"
    with pytest.raises(ValueError, match=message):
        stream_table(scan_table(folder), schema, folder / "encoded")
    assert not list(folder.glob("encoded*"))


def test_damaged_values_are_found_when_they_are_read_or_before(table, folder):
    content = bytearray((folder / "2.parquet").read_bytes())
    content[4:400] = b"\xff" * 396
    (folder / "2.parquet").write_bytes(content)
    schema = cvae.schema.infer(table, **OPTIONS)
    with pytest.raises(
        ValueError, match=r"must be readable Parquet files, got .*\(skip_damaged leaves out such parts\)"
    ):
        stream_table(scan_table(folder), schema, folder / "encoded")
    with pytest.warns(UserWarning, match=r"left out: .*2\.parquet"):
        assert scan_table(folder, skip_damaged=True).collect().height == 33


def test_a_damaged_file_is_named_or_left_out(table, folder):
    (folder / "1.parquet").write_bytes((folder / "1.parquet").read_bytes()[:50])
    with pytest.raises(ValueError, match=r"1\.parquet must be a readable Parquet file, got ComputeError"):
        scan_table(folder)
    with pytest.warns(UserWarning, match=r"left out: .*1\.parquet"):
        rows = scan_table(folder, skip_damaged=True).collect()
    assert rows["name"].to_list() == [*table["name"][:31], *table["name"][33:]]


def test_what_is_no_table_is_refused(table, folder):
    with pytest.raises(ValueError, match=r"must be a \.parquet file or a folder of them, got none"):
        scan_table(folder / "0.csv")
    table.drop("age").write_parquet(folder / "1.parquet")
    with pytest.raises(ValueError, match=r"1\.parquet must have the columns of 0\.parquet, .*, got age None"):
        scan_table(folder)
