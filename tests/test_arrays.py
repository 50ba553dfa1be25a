"""A user's own file: what is read, what is refused before it costs memory, and that nothing in it ever runs."""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from cvae import arrays

RNG = np.random.default_rng(5)
GOOD = {
    "picture": RNG.integers(0, 256, (7, 4, 3, 1), dtype=np.uint8),
    "label": RNG.integers(0, 10, 7),
    "observed": RNG.random((7, 5)) < 0.3,
    "half": RNG.random((7, 2)).astype(np.float16),
    "target": RNG.standard_normal((7, 6)),
    "empty": np.zeros((0, 3), np.float32),
}


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


def npy(array, **kwargs):
    """The bytes of a .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), **kwargs)
    return stream.getvalue()


def forged(header, data=b"", version=(1, 0)):
    """A .npy file with any header at all."""
    text = header.encode()
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + data


def header(descr="<f8", shape=(3,), order=False):
    return repr({"descr": descr, "fortran_order": order, "shape": shape})


def archive(path, members, method=zipfile.ZIP_STORED):
    """A zip file of these members, whatever they hold."""
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def overstate(path, size):
    """Rewrite what the zip's own directory says of the unpacked size of its only member."""
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", size)
    path.write_bytes(content)
    return path


@pytest.fixture
def mine(tmp_path):
    return tmp_path / "mine.npz"


# What is read


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_good_files_come_back_as_they_were(mine, save):
    save(mine, **GOOD)
    for path in (mine, str(mine)):
        back = arrays.read(path)
        assert list(back) == list(GOOD)
        for name, array in GOOD.items():
            np.testing.assert_array_equal(back[name], array, strict=True)
            assert back[name].flags.writeable


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i4", "u8", "f2", "f4", "f8", ">i4", ">f8"])
def test_byte_orders_and_memory_orders_are_made_the_machine_s(mine, dtype):
    array = np.asfortranarray(RNG.integers(0, 2, (4, 3, 2)).astype(dtype))
    np.savez(mine, a=array)
    back = arrays.read(mine)["a"]
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.dtype.isnative
    assert back.flags.c_contiguous


def test_arrays_larger_than_any_buffer(mine):
    array = RNG.integers(0, 256, 3_000_001, dtype=np.uint8)
    np.savez_compressed(mine, array=array)
    np.testing.assert_array_equal(arrays.read(mine)["array"], array, strict=True)


def test_a_header_of_the_second_version(mine):
    archive(mine, {"a.npy": npy(GOOD["target"], version=(2, 0))})
    np.testing.assert_array_equal(arrays.read(mine)["a"], GOOD["target"], strict=True)


def test_only_what_is_named_is_read_and_in_that_order(mine, tmp_path):
    np.savez(mine, **GOOD, words=np.array(["a", "b"]), trap=np.array([Trap(tmp_path / "sprung")], object))
    back = arrays.read(mine, ["target", "label"])
    assert list(back) == ["target", "label"]
    np.testing.assert_array_equal(back["label"], GOOD["label"], strict=True)
    assert arrays.read(mine, ()) == {}


def test_a_file_that_truly_compresses_well_is_no_bomb(mine):
    np.savez_compressed(mine, zeros=np.zeros((5000, 1000), np.uint8))
    assert mine.stat().st_size * 500 < 5_000_000
    assert arrays.read(mine)["zeros"].shape == (5000, 1000)


# What is no file of arrays


def test_no_such_file(mine):
    with pytest.raises(ValueError, match=r"mine\.npz must be an \.npz file, as numpy\.savez writes it, got no such"):
        arrays.read(mine)


def test_a_folder_a_pipe_and_no_path_at_all(mine, tmp_path):
    with pytest.raises(ValueError, match="got a folder"):
        arrays.read(tmp_path)
    os.mkfifo(mine)
    with pytest.raises(ValueError, match="got something that is no regular file"):
        arrays.read(mine)
    for path in (None, 3, b"mine.npz"):
        with pytest.raises(ValueError, match="path must be a path, got"):
            arrays.read(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(mine):
    np.savez(mine, **GOOD)
    mine.chmod(0)
    with pytest.raises(ValueError, match=r"mine\.npz must be readable, got Permission denied"):
        arrays.read(mine)


@pytest.mark.parametrize(
    ("content", "came"),
    [
        (b"", "an empty file"),
        (b"label,x\n3,0.5\n", r"a file that starts with b'label,x"),
        (npy([1, 2]), r"a \.npy file, an array without a name"),
        (pickle.dumps([1, 2]), "a pickle, which can run code when loaded"),
        (b"PK\x03\x04" + bytes(50), "a damaged or foreign one"),
    ],
)
def test_other_files(mine, content, came):
    mine.write_bytes(content)
    with pytest.raises(ValueError, match=rf"mine\.npz must .*, got {came}"):
        arrays.read(mine)


def test_an_empty_archive(mine):
    with pytest.raises(ValueError, match="must hold at least one array, got an empty archive"):
        arrays.read(archive(mine, {}))


# Nothing executes


def test_a_pickle_leaves_no_trace(mine, tmp_path):
    sprung = tmp_path / "sprung"
    trap = np.array([Trap(sprung), None], object)
    np.savez(mine, good=GOOD["label"], trap=trap)
    glued = tmp_path / "glued.npz"
    glued.write_bytes(pickle.dumps(Trap(sprung)) + mine.read_bytes())
    bare = tmp_path / "bare.npz"
    bare.write_bytes(pickle.dumps(Trap(sprung)))
    disguised = archive(tmp_path / "disguised.npz", {"trap.npy": pickle.dumps(Trap(sprung))})
    # The header speaks of floats and the content is a pickle of the same length.
    content = pickle.dumps(Trap(sprung)).ljust(800, b".")
    floats = archive(tmp_path / "floats.npz", {"trap.npy": forged(header(shape=(100,)), content)})

    with pytest.raises(ValueError, match=r"'trap' in .*mine\.npz must be bool, integers or floats, got object values"):
        arrays.read(mine)
    for file in (glued, bare):
        with pytest.raises(ValueError, match="got a pickle, which can run code"):
            arrays.read(file)
    with pytest.raises(ValueError, match=r"'trap' in .* must be whole"):
        arrays.read(disguised)
    assert arrays.read(floats)["trap"].shape == (100,)
    assert not sprung.exists()
    np.load(mine, allow_pickle=True)["trap"]  # the trap works
    assert sprung.exists()


@pytest.mark.parametrize(
    ("array", "came"),
    [
        (np.array([None]), "object"),
        (np.array(["three"]), "<U5"),
        (np.array([b"three"]), r"\|S5"),
        (np.array([1 + 2j]), "complex128"),
        (np.array(["2020-01-01"], "datetime64[D]"), "datetime64"),
        (np.zeros(2, [("x", "f4"), ("y", "i4")]), r"\["),
        (np.zeros(2, "V3"), r"\|V3"),
    ],
)
def test_arrays_that_are_no_numbers(mine, array, came):
    np.savez(mine, fine=GOOD["label"], odd=array)
    with pytest.raises(ValueError, match=rf"'odd' in .*mine\.npz must be bool, integers or floats, got {came}"):
        arrays.read(mine)


def test_a_scalar(mine):
    np.savez(mine, odd=3)
    with pytest.raises(ValueError, match=r"'odd' in .*mine\.npz must have at least one axis, got a scalar"):
        arrays.read(mine)


def test_a_bool_of_two(mine):
    archive(mine, {"odd.npy": forged(header("|b1", (3,)), b"\0\1\2")})
    with pytest.raises(ValueError, match=r"'odd' in .* neither 0 nor 1"):
        arrays.read(mine)


# Damage


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_anywhere(mine, save):
    save(mine, **GOOD)
    whole = mine.read_bytes()
    for cut in {*range(1, len(whole), 97), len(whole) - 1}:
        mine.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"mine\.npz must"):
            arrays.read(mine)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_byte_in_the_data(mine, save):
    save(mine, target=GOOD["target"])
    whole = mine.read_bytes()
    start = 30 + len("target.npy") + struct.unpack("<H", whole[28:30])[0]
    with zipfile.ZipFile(mine) as file:
        end = start + file.infolist()[0].compress_size
    for place in range(start, end - 1):  # the last bits of a deflated member are padding
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        mine.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"'target' in .*mine\.npz must"):
            arrays.read(mine)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_byte_anywhere_is_refused_or_harmless(mine, save):
    save(mine, **GOOD)
    whole = mine.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x21
        mine.write_bytes(damaged)
        try:
            back = arrays.read(mine)
        except ValueError as error:
            assert "mine.npz must" in str(error)  # noqa: PT017  it may also pass: dates are not looked at
            continue
        for name in set(back) & set(GOOD):
            np.testing.assert_array_equal(back[name], GOOD[name], strict=True)


# Forgery


def traced(path, match):
    """The most memory that a refusal took."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match):
            arrays.read(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(10**12,), (10**6, 10**6), (4,), (2,), (2**63, 2), (2**32, 2**32)])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_header_that_claims_other_than_it_has(mine, shape, method):
    archive(mine, {"big.npy": forged(header("<f8", shape), bytes(24))}, method)
    match = r"'big' in .*mine\.npz must hold the bytes of float64 .*, \d+ of them, got 24"
    assert traced(mine, match) < 2**20


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_header_and_a_directory_that_both_lie(mine, method):
    text = header("|u1", (3 * 10**9,))
    archive(mine, {"big.npy": forged(text, bytes(24))}, method)
    overstate(mine, 10 + len(text) + 3 * 10**9)
    assert traced(mine, r"mine\.npz must unpack to at most 1073741824 bytes .* claims 3000000") < 2**20
    # A lie within what any file may unpack to is caught when the data run out.
    text = header("|u1", (10**6,))
    archive(mine, {"big.npy": forged(text, bytes(24))}, method)
    overstate(mine, 10 + len(text) + 10**6)
    assert traced(mine, r"'big' in .* must be whole") < 2**22


def test_members_that_are_bombs_together(mine, monkeypatch):
    monkeypatch.setattr(arrays, "_ALWAYS_ALLOWED", 10**6)
    np.savez_compressed(mine, a=np.zeros(700_000, np.uint8), b=np.zeros(700_000, np.uint8))
    assert arrays.read(mine, ["a"])["a"].size == 700_000
    with pytest.raises(ValueError, match=r"mine\.npz must unpack to at most 1000000 bytes"):
        arrays.read(mine)
    np.savez(mine, a=np.zeros(700_000, np.uint8), b=np.zeros(700_000, np.uint8))
    assert len(arrays.read(mine)) == 2


def test_a_header_that_never_ends(mine):
    bomb = forged(" " * 30_000_000, version=(2, 0))
    archive(mine, {"a.npy": bomb}, zipfile.ZIP_DEFLATED)
    assert traced(mine, "'a' in .* must be whole") < 2**22


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "{}",
        "__import__('os').mkdir('sprung')",
        "(" * 5000,
        "-" * 9000 + "1",
        header(shape=(-3,)),
        header(shape=(-3, -1)),
        header(shape=(True, 3)),
        header(shape=3),
        header(shape=(3.0,)),
        header(shape=(1,) * 100 + (3,)),
        header(descr="nonsense"),
        header(descr=3),
        header(descr=("<f8", (3,)), shape=(1,)),
        header(descr=[("x", "<f8")]),
        header(order=1),
    ],
)
def test_foreign_headers(mine, text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    archive(mine, {"a.npy": forged(text, bytes(24))})
    with pytest.raises(ValueError, match=r"'a' in .*mine\.npz must "):
        arrays.read(mine)
    assert os.listdir(tmp_path) == ["mine.npz"]


def test_data_after_the_array(mine):
    archive(mine, {"a.npy": npy(GOOD["label"]) + b"more"})
    with pytest.raises(ValueError, match=r"'a' in .* must hold the bytes of int64"):
        arrays.read(mine)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound(mine, method):
    archive(mine, {"a.npy": npy(GOOD["label"])}, method)
    with pytest.raises(ValueError, match="must be stored or deflated, and not encrypted"):
        arrays.read(mine)


def test_an_encrypted_member(mine):
    archive(mine, {"a.npy": npy(GOOD["label"])})
    content = bytearray(mine.read_bytes())
    for flags in (6, content.rindex(b"PK\x01\x02") + 8):
        content[flags] |= 1
    mine.write_bytes(content)
    with pytest.raises(ValueError, match="must be stored or deflated, and not encrypted"):
        arrays.read(mine)


# Names


@pytest.mark.parametrize(
    "name", ["../a.npy", "/a.npy", "b/a.npy", "..\\a.npy", "C:a.npy", "a.txt", "a", ".npy", "b/", "a.npy.pkl"]
)
def test_member_names_that_are_not_plain(mine, name):
    archive(mine, {"label.npy": npy(GOOD["label"]), name: npy(GOOD["label"])})
    with pytest.raises(ValueError, match=r"mine\.npz must hold members named <name>\.npy, without folders, got '"):
        arrays.read(mine, ["label"])


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice(mine):
    with zipfile.ZipFile(mine, "w") as file:
        for size in (1, 2):
            file.writestr("a.npy", npy(np.zeros(size)))
    with pytest.raises(ValueError, match=r"mine\.npz must hold every name once, got 'a' twice"):
        arrays.read(mine)


def test_names_that_the_file_lacks(mine):
    np.savez(mine, label=GOOD["label"], x=GOOD["target"])
    with pytest.raises(ValueError, match=r"hold an array 'lable', got .*\['label', 'x'\]; did you mean 'label'\?$"):
        arrays.read(mine, ["x", "lable"])
    with pytest.raises(ValueError, match=r"hold an array 'weight', got a file with \['label', 'x'\]$"):
        arrays.read(mine, ["weight"])


@pytest.mark.parametrize("names", ["label", b"label", [3], 3, [None]])
def test_names_are_strings_in_a_list(mine, names):
    np.savez(mine, label=GOOD["label"])
    with pytest.raises(ValueError, match="names must be a list of strings, got"):
        arrays.read(mine, names)


def test_every_refusal_is_one_line(mine):
    archive(mine, {"a.npy": forged("{'descr':\n\n'x'", zlib.compress(b"x"))})
    with pytest.raises(ValueError, match="'a' in") as caught:
        arrays.read(mine)
    assert "\n" not in str(caught.value)


# The cut of the rows


@pytest.mark.parametrize(
    ("size", "fractions", "counts"),
    [(1797, (0.1, 0.1), (1437, 180, 180)), (10, (0.1, 0.1), (8, 1, 1)), (100, (0.29, 0.5), (21, 29, 50))],
)
def test_the_parts_are_disjoint_and_complete(size, fractions, counts):
    rows = arrays.split(size, 3, *fractions)
    assert tuple(map(len, rows)) == counts
    assert all(part.dtype == np.int64 for part in rows)
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(size))


def test_the_seed_decides():
    first, again, other = arrays.split(200, 7), arrays.split(200, 7), arrays.split(200, 8)
    for part in arrays.Rows._fields:
        np.testing.assert_array_equal(getattr(first, part), getattr(again, part))
        assert not np.array_equal(getattr(first, part), getattr(other, part))
    assert not np.array_equal(first.train, np.sort(first.train))


def test_every_row_is_as_likely_in_every_part():
    draws = np.array([np.isin(np.arange(20), arrays.split(20, seed, 0.2, 0.3).test) for seed in range(2000)])
    error = np.sqrt(0.3 * 0.7 / len(draws))
    assert (np.abs(draws.mean(0) - 0.3) < 5 * error).all()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((4, 0), "size must give every part a row, got 4, which leaves validation and test without"),
        ((1, 0), "size must give every part a row, got 1"),
        ((2, 0, 0.49, 0.49), "size must give every part a row, got 2, which leaves train without"),
        ((10, 0, 0.01), "got 10, which leaves validation without"),
        ((0, 0), "size must be a whole number of at least 1, got 0"),
        ((10.0, 0), "size must be a whole number"),
        ((10, -1), "seed must be a whole number of at least 0, got -1"),
        ((10, 0, 0.5, 0.5), r"validation \+ test must be below 1, got 0.5 \+ 0.5"),
        ((10, 0, 0.0), "validation must be a finite number above 0, got 0.0"),
        ((10, 0, 0.1, float("nan")), "test must be a finite number above 0, got nan"),
    ],
)
def test_cuts_that_leave_a_part_empty(arguments, match):
    with pytest.raises(ValueError, match=match):
        arrays.split(*arguments)
