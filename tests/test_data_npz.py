"""A user's own file: what is read, what is refused before it costs memory, and that nothing in it ever executes."""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from cvae.data import npz, npz_names, read_npy, read_npz, split_rows

RNG = np.random.default_rng(5)
GOOD = {
    "image": RNG.integers(0, 256, (7, 4, 3, 1), dtype=np.uint8),
    "label": RNG.integers(0, 10, 7),
    "observed": RNG.random((7, 5)) < 0.3,
    "half": RNG.random((7, 2)).astype(np.float16),
    "target": RNG.standard_normal((7, 6)),
    "empty": np.zeros((0, 3), np.float32),
}
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def npy(array, **kwargs):
    """The bytes of a .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), **kwargs)
    return stream.getvalue()


def forged(header, data=b"", version=(1, 0)):
    """The bytes of a .npy file with any header."""
    text = header.encode()
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + data


def header(descr="<f8", shape=(3,), order=False):
    return repr({"descr": descr, "fortran_order": order, "shape": shape})


def archive(path, members, method=zipfile.ZIP_STORED):
    """A zip file of these members."""
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "mine.npz"


# What is read


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_they_were_saved(file, save):
    save(file, **GOOD, zeros=np.zeros((5000, 1000), np.uint8))  # which compresses better than any image
    arrays = read_npz(str(file))
    assert tuple(arrays) == npz_names(file) == (*GOOD, "zeros")
    for name, array in GOOD.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)
        assert arrays[name].flags.writeable


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "u8", "f2", "f4", ">i4", ">f8"])
def test_arrays_are_contiguous_and_in_native_byte_order(file, dtype):
    array = np.asfortranarray(RNG.integers(0, 2, (4, 3, 2)).astype(dtype))
    archive(file, {"a.npy": npy(array), "b.npy": npy(array, version=(2, 0))})
    for read in read_npz(file).values():
        np.testing.assert_array_equal(read, array)
        assert read.dtype == array.dtype.newbyteorder("=")
        assert read.dtype.isnative
        assert read.flags.c_contiguous


def test_only_the_named_arrays_are_read_and_in_that_order(file, tmp_path):
    np.savez(file, **GOOD, words=np.array(["a", "b"]), trap=np.array([Trap(tmp_path / "sprung")], object))
    assert list(read_npz(file, ["target", "label"])) == ["target", "label"]
    assert read_npz(file, ()) == {}


# What is refused


def assert_refused(file, match):
    """Check for an error of one line that takes less than 4 MiB of memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"mine\.npz must {match}") as error:
            read_npz(file)
        assert "\n" not in str(error.value)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_pickles_are_never_loaded(file, tmp_path):
    sprung = tmp_path / "sprung"
    pickled = pickle.dumps(Trap(sprung))
    trap = npy(np.array([Trap(sprung), None], object), allow_pickle=True)
    assert_refused(archive(file, {"trap.npy": trap}), "be bool, integers or floats, got object values")
    whole = file.read_bytes()
    for content in (pickled, pickled + whole):
        file.write_bytes(content)
        assert_refused(file, r"be an \.npz file, .*, got a file that starts with b'\\x80")
    assert_refused(archive(file, {"trap.npy": pickled}), "be readable and intact")
    archive(file, {"trap.npy": forged(header(shape=(100,)), pickled.ljust(800, b"."))})
    assert read_npz(file)["trap"].shape == (100,)
    assert not sprung.exists()
    file.write_bytes(whole)
    np.load(file, allow_pickle=True)["trap"]  # the trap works
    assert sprung.exists()


KIND, PLAIN, SIZE = "be bool, integers or floats, got ", r"hold members named NAME\.npy", "hold the bytes of float64 "
SHAPE, INTACT = "have at least one axis, and no negative length, got ", "be readable and intact, as numpy"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        # Other kinds of arrays
        ("a.npy", npy(np.array(["three"])), KIND),
        ("a.npy", npy(np.array([b"three"])), KIND),
        ("a.npy", npy(np.array([1 + 2j])), KIND),
        ("a.npy", npy(np.array(["2020-01-01"], "datetime64[D]")), KIND),
        ("a.npy", npy(np.zeros(2, [("x", "f4"), ("y", "i4")])), KIND),
        ("a.npy", npy(np.zeros(2, "V3")), KIND),
        ("a.npy", npy(np.float32(3)), SHAPE),
        ("a.npy", forged(header("|b1", (3,)), b"\0\1\2"), INTACT),
        # Member names that are not plain
        *((name, npy([1]), PLAIN) for name in ("../a.npy", "/a.npy", "..\\a.npy", "C:a.npy", "a", ".npy", "a.npy.pkl")),
        # Headers that claim another size than the 24 bytes that follow
        *(
            ("a.npy", forged(header("<f8", shape), bytes(24)), SIZE)
            for shape in ((10**12,), (10**6, 10**6), (4,), (2,), (2**63, 2), (10**4000, 10**4000))
        ),
        # Foreign headers
        *(
            ("a.npy", forged(text, bytes(24)), f"({INTACT}|{SHAPE}|{KIND})")
            for text in (
                "",
                "3",
                "{}",
                "{'descr':\n\n'x'",
                "__import__('os').mkdir('sprung')",
                "(" * 5000,
                "-" * 9000 + "1",
                header(shape=(-3, -1)),
                header(shape=(True, 3)),
                header(shape=3),
                header(shape=(3.0,)),
                header(shape=(1,) * 100 + (3,)),
                header(descr="nonsense"),
                header(descr=("<f8", (3,)), shape=(1,)),
                header(descr=[("x", "<f8")]),
                header(order=1),
            )
        ),
        ("a.npy", forged(" " * 30_000_000, version=(2, 0)), INTACT),
    ],
)
def test_arrays_that_are_foreign_or_forged(file, name, content, match, method, monkeypatch):
    monkeypatch.chdir(file.parent)
    archive(file, {name: content}, method)
    assert_refused(file, match)
    assert os.listdir() == ["mine.npz"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("size", "match"), [(3 * 10**9, "unpack to at most 1073741824 bytes"), (10**6, INTACT)])
def test_header_and_directory_that_claim_the_same_wrong_size(file, size, match, method):
    text = header("|u1", (size,))
    archive(file, {"big.npy": forged(text, bytes(24))}, method)
    content = bytearray(file.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 10 + len(text) + size)  # the unpacked size of the member
    file.write_bytes(content)
    assert_refused(file, match)


def test_arrays_that_are_too_large_together(file, monkeypatch):
    monkeypatch.setattr(npz, "_ALWAYS_ALLOWED", 10**6)
    arrays = {"a": np.zeros(700_000, np.uint8), "b": np.zeros(700_000, np.uint8)}
    np.savez_compressed(file, **arrays)
    assert read_npz(file, ["a"])["a"].size == 700_000
    assert_refused(file, "unpack to at most 1000000 bytes")
    np.savez(file, **arrays)
    assert len(read_npz(file)) == 2


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, "encrypted"])
def test_methods_of_zip_that_numpy_does_not_write(file, method):
    archive(file, {"a.npy": npy(GOOD["label"])}, zipfile.ZIP_STORED if method == "encrypted" else method)
    if method == "encrypted":
        content = bytearray(file.read_bytes())
        for flags in (6, content.rindex(b"PK\x01\x02") + 8):
            content[flags] |= 1
        file.write_bytes(content)
    assert_refused(file, "be stored or deflated, and not encrypted")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_missing_or_twice(file):
    with zipfile.ZipFile(file, "w") as twice:
        for size in (1, 2):
            twice.writestr("a.npy", npy(np.zeros(size)))
    assert_refused(file, "hold every name once, got 'a' twice")
    assert_refused(archive(file, {}), "hold at least one array, got an empty archive")
    np.savez(file, label=GOOD["label"], x=GOOD["target"])
    with pytest.raises(ValueError, match=r"mine\.npz must hold an array 'lable', got one with \['label', 'x'\]$"):
        read_npz(file, ["x", "lable"])
    for names in ("label", [3], 3):
        with pytest.raises(ValueError, match="names must be a list of strings, got"):
            read_npz(file, names)


def test_other_files(file):
    assert_refused(file, r"be an \.npz file, as numpy\.savez writes it, got no such file")
    for content in (b"", b"label,x\n3,0.5\n", npy([1, 2])):
        file.write_bytes(content)
        assert_refused(file, r"be an \.npz file, .* got a file that starts with b'")
    if hasattr(os, "mkfifo"):  # which Windows lacks; opening it would block
        file.unlink()
        os.mkfifo(file)
        assert_refused(file, r"be an \.npz file, .* got no regular file")
    with pytest.raises(ValueError, match="path must be a path, got 3"):
        read_npz(3)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_files(file, save):
    save(file, **GOOD)
    whole = file.read_bytes()
    for cut in {*range(1, len(whole), 197), len(whole) - 1}:
        file.write_bytes(whole[:cut])
        assert_refused(file, "")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flipped_bytes_are_refused_or_harmless(file, save):
    save(file, **GOOD)
    whole = file.read_bytes()
    refused, flipped = 0, range(0, len(whole), 13)
    for place in flipped:
        damaged = bytearray(whole)
        damaged[place] ^= 0x21
        file.write_bytes(damaged)
        try:
            arrays = read_npz(file)
        except ValueError as error:
            assert "mine.npz must" in str(error)  # noqa: PT017  some bytes, such as dates, are not read
            refused += 1
        else:
            for name in set(arrays) & set(GOOD):
                np.testing.assert_array_equal(arrays[name], GOOD[name], strict=True)
    assert refused > len(flipped) / 2


# The split of the rows


@pytest.mark.parametrize(
    ("size", "fractions", "counts"),
    [(1797, (0.1, 0.1), (1437, 180, 180)), (10, (0.1, 0.1), (8, 1, 1)), (100, (0.29, 0.5), (21, 29, 50))],
)
def test_parts_are_disjoint_and_complete_and_follow_the_seed(size, fractions, counts):
    rows = split_rows(size, 3, *fractions)
    assert tuple(map(len, rows)) == counts
    assert all(part.dtype == np.int64 for part in rows)
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(size))
    np.testing.assert_array_equal(np.concatenate(split_rows(size, 3, *fractions)), np.concatenate(rows))
    assert not np.array_equal(np.concatenate(split_rows(size, 4, *fractions)), np.concatenate(rows))


def test_every_row_is_as_likely_in_every_part():
    draws = np.array([np.isin(np.arange(20), split_rows(20, seed, 0.2, 0.3).test) for seed in range(1000)])
    error = np.sqrt(0.3 * 0.7 / len(draws))
    assert (np.abs(draws.mean(0) - 0.3) < 5 * error).all()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (
            (4, 0),
            r"leave rows for train, .* \(change .* --validation and --test\), got .*'validation': 0, .* of 4 rows",
        ),
        ((2, 0, 0.49, 0.49), "got {'train': 0"),
        ((10, 0, 0.5, 0.5), "got {'train': 0"),
        ((10, 0, 0.9, 0.9), "got {'train': -8"),
        ((0, 0), "size must be an integer of at least 1, got 0"),
        ((10, -1), "seed must be an integer of at least 0, got -1"),
        ((10, 0, 0.1, float("nan")), r"test must be a finite number in \[0, 1\], got nan"),
    ],
)
def test_splits_that_leave_a_part_empty(arguments, match):
    with pytest.raises(ValueError, match=match):
        split_rows(*arguments)


# Single arrays


def test_an_npy_file_is_mapped_and_not_read(tmp_path):
    path = tmp_path / "one.npy"
    np.save(path, GOOD["image"])
    array = read_npy(str(path))
    assert isinstance(array, np.memmap)
    np.testing.assert_array_equal(array, GOOD["image"])
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.array(["three"])), "be bool, integers or floats, got <U5 values"),
        (npy(np.array([Trap("sprung"), None], object), allow_pickle=True), "be bool, integers or floats, got object"),
        (npy(np.float32(3)), SHAPE),
        (forged(header("<f8", (10**12,)), bytes(24)), SIZE),
        (forged(header("|b1", (3,)), b"\0\1\2"), "be readable and intact, as numpy.save writes it"),
        (forged("{}"), "be readable and intact, as numpy.save writes it"),
        (pickle.dumps([3]), "be readable and intact"),
        (npy(np.arange(3, dtype=">f8")), "be in native byte order"),
    ],
)
def test_npy_files_that_are_foreign_or_forged(tmp_path, content, message):
    (tmp_path / "mine.npy").write_bytes(content)
    with pytest.raises(ValueError, match=rf"mine\.npy must {message}"):
        read_npy(tmp_path / "mine.npy")


def test_npy_files_that_are_absent(tmp_path):
    with pytest.raises(ValueError, match=r"be an .npy file, as numpy.save writes it, got no such file"):
        read_npy(tmp_path / "mine.npy")
