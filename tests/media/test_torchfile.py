"""torch.save files: what real writers write is read exactly, and what we write they read."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converter.errors import FormatError, MissingInputError, OutputError, UncropError
from converter.errors import UnsafeFileError as Unsafe
from converter.media.limits import Limits
from converter.media.torchfile import parse_torch, read_torch, torch_bytes, write_torch

# --- helpers ------------------------------------------------------------------------------------


def assert_same(found: object, wanted: object) -> None:
    """Equal in types, dtypes, shapes and bits; arrays as promised by `TorchFile`."""
    if isinstance(wanted, np.ndarray):
        assert type(found) is np.ndarray
        assert found.dtype == wanted.dtype.newbyteorder("=")
        assert found.dtype.isnative
        assert found.shape == wanted.shape
        assert found.flags.c_contiguous
        assert found.flags.owndata
        assert found.flags.writeable
        assert found.tobytes() == wanted.astype(found.dtype).tobytes()
        return
    assert type(found) is type(wanted)
    if isinstance(found, dict) and isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(found, list | tuple) and isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    else:
        assert found == wanted or (found != found and wanted != wanted)


def plain(value: Any) -> Any:
    """Tensors to arrays, numpy scalars to numbers: what `TorchFile` promises for torch.load's."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) or not hasattr(value, "numpy"):
        return value
    return value.numpy()


def from_json(value: Any) -> Any:
    if isinstance(value, dict) and "dtype" in value:
        return np.array(value["values"], value["dtype"]).reshape(value["shape"])
    if isinstance(value, dict):
        return {key: from_json(item) for key, item in value.items()}
    return value


def frame() -> dict[str, Any]:
    rng = np.random.default_rng(3)

    def numbers(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    return {
        "flame": {"exp": numbers(1, 100), "sh": numbers(1, 9, 3), "jaw": numbers(1, 6)},
        "opencv": {"R": np.asfortranarray(numbers(1, 3, 3)), "t": numbers(1, 3)},
        "img_size": np.array([512, 512]),
        "frame_id": "00003",
        "global_step": 2186,
    }


def saved(value: object, **options: Any) -> bytes:
    torch = pytest.importorskip("torch")
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


# --- files of real writers ----------------------------------------------------------------------

SAMPLES = Path(__file__).resolve().parents[2] / "fixtures" / "torch_files"
TRUTH = json.loads((SAMPLES / "truth.json").read_text(encoding="ascii"))


@pytest.mark.parametrize("name", TRUTH["files"])
def test_reads_what_torch_wrote(name: str) -> None:
    file = read_torch(SAMPLES / name)
    assert_same(file.content, from_json(TRUTH["contents"][TRUTH["files"][name]]))
    assert file.stem == (None if "legacy" in name else Path(name).stem)


@pytest.mark.shared
@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize(
    "writer", ["torch1.13_numpy1.23", "torch2.13_numpy1.26", "torch2.13_numpy2.4"]
)
def test_reads_the_tracks_of_three_writers(shared_data: Path, writer: str, kind: str) -> None:
    folder = shared_data / "frame-writers" / writer / kind
    with np.load(folder / "truth.npz") as archive:  # noqa: TID251 - a file of our own
        truth = dict(archive)
    frames = sorted((folder / "output").rglob("*.frame"))
    assert len(frames) == len(truth["R"])
    for i, path in enumerate(frames):
        file = read_torch(path)
        content = file.content
        assert isinstance(content, dict)
        assert file.stem == (path.stem if kind == "zip" else None)
        assert content["frame_id"] == path.stem
        flame, camera, opencv = content["flame"], content["camera"], content["opencv"]
        np.testing.assert_array_equal(flame["exp"][0], truth["exp"][i])
        np.testing.assert_array_equal(flame["jaw"][0], truth["jaw"][i])
        np.testing.assert_allclose(opencv["R"][0], truth["R"][i], atol=1e-6)
        np.testing.assert_allclose(opencv["t"][0], truth["t"][i], atol=1e-6)
        np.testing.assert_allclose(opencv["K"][0], truth["K"][i], rtol=1e-6)
        np.testing.assert_allclose(camera["R"][0], truth["R6d"][i], atol=1e-6)
        np.testing.assert_array_equal(content["img_size"], truth["img_hw"])
    bbox = read_torch(next((folder / "input").rglob("bbox.pt"))).content
    np.testing.assert_array_equal(bbox, truth["bbox"])  # type: ignore[arg-type]


@pytest.mark.shared
def test_all_shared_files_are_read_or_refused_with_a_reason(shared_data: Path) -> None:
    torch = pytest.importorskip("torch")
    paths = [path for suffix in ("frame", "pt") for path in shared_data.rglob(f"*.{suffix}")]
    assert len(paths) > 100
    for path in paths:
        if path.name == "objarr.frame":
            with pytest.raises(Unsafe, match="'O8'.*arrays of objects"):
                read_torch(path)
        else:
            # An oracle, on files that came with the tests.
            wanted = torch.load(path, weights_only=False)  # noqa: TID251
            assert_same(read_torch(path).content, plain(wanted))


BBOX = np.array([398, 1522, 1, 1079])


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        BBOX,
        BBOX.astype(np.int32),
        BBOX.astype(np.float64),
        BBOX.astype(">i8"),
        BBOX.astype(">f4"),
        BBOX.tolist(),
        tuple(BBOX.tolist()),
        list(BBOX),
        [np.float32(0.1), np.float64(0.1), np.int32(-3), np.bool_(True), np.uint8(255)],
        np.array(2.5),
        np.zeros((0, 2)),
        np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3)),
        np.arange(16).reshape(2, 2, 2, 2),
        np.array([True, False]),
        np.array([np.nan, np.inf, -0.0], np.float16),
        np.arange(3, dtype=np.uint64),
        {"a": {}, "b": [], "c": (), "d": None, "e": True, "f": False, "g": 1.5, "": "é日"},
        {1: 2**31, 2: -(2**31), 3: 2**200, 4: -1, 5: 255, 6: 256, 7: 65536, -8: -(2**63)},
        [list(range(2500)), {str(i): np.array([i]) for i in range(1200)}],
        [np.array([i], np.uint8) for i in (7, 97, 97, 7)],
        [np.array([7], np.uint8), np.array([7], np.uint8), np.array([0], np.uint8)],
    ],
    ids=lambda value: f"{type(value).__name__}{getattr(value, 'dtype', '')}",
)
def test_reads_values_as_torch_does(value: object, zipped: bool) -> None:
    data = saved(value, _use_new_zipfile_serialization=zipped)
    assert_same(parse_torch(data, "x").content, plain(value))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_other_pickle_protocols(protocol: int) -> None:
    data = saved(frame(), pickle_protocol=protocol)
    assert_same(parse_torch(data, "x").content, frame())


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_tensors_of_every_kind(zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    kinds = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"]
    whole = torch.arange(12.0)
    value = {kind: torch.arange(3).to(getattr(torch, kind)) for kind in kinds}
    value |= {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "part": whole[4:10].reshape(2, 3),
        "same storage": whole,
        "one row": torch.arange(6).reshape(2, 3)[1:],
        "gradient": torch.ones(2, requires_grad=True).detach().requires_grad_(),
        "named": dict(torch.nn.Linear(2, 3).state_dict()),
    }
    data = saved(value, _use_new_zipfile_serialization=zipped)
    value["gradient"] = value["gradient"].detach()
    assert_same(parse_torch(data, "x").content, plain(value))


def test_the_same_array_twice_is_read_twice() -> None:
    array = np.arange(5.0)
    other = np.arange(3.0)
    for value in ({"a": array, "b": array}, [array, other, other, array]):
        assert_same(parse_torch(saved(value), "x").content, value)


def test_an_ordered_dict_becomes_a_dict() -> None:
    from collections import OrderedDict

    value = OrderedDict([("b", 1), ("a", np.arange(2))])
    assert_same(parse_torch(saved(value), "x").content, dict(value))


def test_a_big_endian_storage_is_swapped() -> None:
    torch = pytest.importorskip("torch")
    members = unzipped(saved(torch.tensor([1, 256])))
    members["archive/byteorder"] = b"big"
    members["archive/data/0"] = np.array([1, 256], ">i8").tobytes()
    assert_same(parse_torch(zipped_again(members), "x").content, np.array([1, 256]))


def test_tensors_of_a_gpu_are_read_without_one() -> None:
    torch = pytest.importorskip("torch")
    members = unzipped(saved(torch.arange(4)))
    stream = members["archive/data.pkl"]
    assert stream.count(b"\x03\0\0\0cpu") == 1
    members["archive/data.pkl"] = stream.replace(b"\x03\0\0\0cpu", b"\x06\0\0\0cuda:0")
    assert_same(parse_torch(zipped_again(members), "x").content, np.arange(4))


def test_a_deflated_file_is_read() -> None:
    members = unzipped(torch_bytes(frame(), stem="archive", tensors=True))
    assert_same(parse_torch(zipped_again(members, zipfile.ZIP_DEFLATED), "x").content, frame())


def unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped_again(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


# --- what is no torch.save file -----------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"00000\.frame"):
        read_torch(tmp_path / "00000.frame")


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"", FormatError, "an empty file"),
        (b"hello, world", FormatError, "another format"),
        (b"PK\x03\x04", FormatError, "ends early, or late"),
        (b"\x80\x04\x95\x05\0\0\0\0\0\0\0K\x01.", Unsafe, "bare pickle"),
        (b"\x80\x02cposix\nsystem\n", Unsafe, "bare pickle"),
        (b"sys_info".ljust(257, b"\0") + b"ustar\x0000" + bytes(600), Unsafe, "tar archive"),
    ],
)
def test_other_formats_are_refused(data: bytes, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        parse_torch(data, "x")


@pytest.mark.parametrize("name", TRUTH["files"])
def test_a_cut_file_is_refused(name: str) -> None:
    data = (SAMPLES / name).read_bytes()
    for n_bytes in range(0, len(data) - 1, 64):
        with pytest.raises(UncropError):
            parse_torch(data[:n_bytes], "x")
    with pytest.raises(UncropError):
        parse_torch(data[:-1], "x")


@pytest.mark.parametrize("name", TRUTH["files"])
def test_a_flipped_bit_is_no_crash(name: str) -> None:
    data = (SAMPLES / name).read_bytes()
    for i in range(0, len(data), 5):
        flipped = bytearray(data)
        flipped[i] ^= 1 << i % 8
        with contextlib.suppress(UncropError):
            parse_torch(bytes(flipped), "x")


@pytest.mark.parametrize("name", ["00003.frame", "tensors.frame", "bbox_tensor.pt"])
def test_a_flipped_bit_in_the_numbers_of_a_zip_is_found(name: str) -> None:
    data = (SAMPLES / name).read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [m for m in archive.infolist() if "/data" in m.filename]
    for member in members:
        n_name, n_extra = data[member.header_offset + 26], data[member.header_offset + 28]
        start = member.header_offset + 30 + n_name + n_extra
        for i in range(start, start + member.file_size, 7):
            flipped = bytearray(data)
            flipped[i] ^= 4
            with pytest.raises(FormatError, match="CRC-32"):
                parse_torch(bytes(flipped), "x")


# --- writing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tensors", [True, False])
def test_written_files_read_back_here_and_in_torch(tmp_path: Path, tensors: bool) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "00003.frame"
    write_torch(path, frame(), stem="00003", tensors=tensors)
    file = read_torch(path)
    assert file.stem == "00003"
    assert_same(file.content, frame())
    loaded = torch.load(path, weights_only=tensors)  # noqa: TID251 - an oracle on our own file
    assert isinstance(loaded["img_size"], torch.Tensor if tensors else np.ndarray)
    loaded["opencv"]["R"] = np.ascontiguousarray(plain(loaded["opencv"]["R"]))
    for kind in ("flame", "opencv"):
        for key, wanted in frame()[kind].items():
            np.testing.assert_array_equal(plain(loaded[kind][key]), wanted)
    assert loaded["frame_id"] == "00003"


def test_arrays_are_written_as_torch_1_with_numpy_1_does() -> None:
    """Byte for byte the stream of a real writer, but for the family of numpy's names."""
    value = frame()
    value["opencv"]["R"] = np.ascontiguousarray(value["opencv"]["R"])
    value |= {"same text": "flame", "more": [1, -1, 2.5, None, True, (), (1, 2, 3, 4), {}, []]}
    real = unzipped(saved(value))["archive/data.pkl"]
    ours = unzipped(torch_bytes(value, stem="archive", tensors=False))["archive/data.pkl"]
    assert b"numpy.core.multiarray" in ours
    assert ours == real.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def test_tensors_are_written_as_torch_does() -> None:
    torch = pytest.importorskip("torch")
    value = {"a": np.arange(3.0), "b": [np.ones((2, 3), np.float32)], "c": np.array(True)}
    twin = {"a": torch.arange(3.0, dtype=torch.float64), "b": [torch.ones(2, 3)]}
    real = unzipped(saved(twin | {"c": torch.tensor(True)}))
    ours = unzipped(torch_bytes(value, stem="archive", tensors=True))
    assert ours.items() <= real.items()


@pytest.mark.shared
def test_a_real_track_is_written_as_it_was(shared_data: Path) -> None:
    folder = shared_data / "frame-writers" / "torch1.13_numpy1.23"
    for path in sorted(folder.rglob("bbox*.pt")):
        data = path.read_bytes()
        if data.startswith(b"PK") and "tensor" not in path.name and "scalars" not in path.name:
            content = read_torch(path).content
            ours = unzipped(torch_bytes(content, stem=path.stem, tensors=False))
            assert ours[f"{path.stem}/data.pkl"] == unzipped(data)[f"{path.stem}/data.pkl"]


@pytest.mark.parametrize("tensors", [True, False])
def test_the_same_content_gives_the_same_bytes(tmp_path: Path, tensors: bool) -> None:
    first, second = tmp_path / "a", io.BytesIO()
    write_torch(first, frame(), stem="x", tensors=tensors)
    write_torch(second, frame(), stem="x", tensors=tensors)
    assert first.read_bytes() == second.getvalue()


def test_data_begin_at_multiples_of_64() -> None:
    data = torch_bytes([np.arange(i) for i in range(5)], stem="a b", tensors=True)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        for member in archive.infolist():
            n_name, n_extra = data[member.header_offset + 26], data[member.header_offset + 28]
            assert (member.header_offset + 30 + n_name + n_extra) % 64 == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"raw", "bytes"),
        ({1.5: 2}, "keys"),
        ({None: 2}, "keys"),
        ({2**31: 2}, "keys"),
        ({True: 2}, "keys"),
        (np.array(["text"]), "dtype"),
        (np.array([None]), "dtype"),
        (np.array([1j]), "dtype"),
        ("\ud800", "surrogate"),
        (1 << 3000, "255 bytes"),
        ({1, 2}, "set"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(content: Any, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        torch_bytes(content, stem="x", tensors=False)


def test_a_list_inside_itself_is_not_written() -> None:
    content: list[Any] = []
    content.append(content)
    with pytest.raises(OutputError, match="nesting"):
        torch_bytes(content, stem="x", tensors=False)


def test_unsigned_tensors_need_a_newer_torch() -> None:
    content = np.arange(3, dtype=np.uint16)
    with pytest.raises(OutputError, match="tensors of plain numbers.*uint16"):
        torch_bytes(content, stem="x", tensors=True)


@pytest.mark.parametrize("stem", ["", ".", "..", "a/b", "a\\b", "a\nb"])
def test_a_stem_is_one_name(stem: str) -> None:
    with pytest.raises(OutputError, match="stem"):
        torch_bytes(None, stem=stem, tensors=False)


def test_a_folder_in_the_way_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=tmp_path.name):
        write_torch(tmp_path, None, stem="x", tensors=False)


# --- laws ---------------------------------------------------------------------------------------

dtypes = st.sampled_from([f"{o}{n}" for o in "<>" for n in ["f2", "f4", "f8", "i2", "i4", "i8"]])
dtypes |= st.sampled_from(["|i1", "|u1", "|b1"])
arrays = dtypes.flatmap(
    lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=0, min_side=0, max_dims=5))
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts | arrays
keys = texts | st.integers(-(2**31) + 1, 2**31 - 1)
contents = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(keys, inner, max_size=5)
    ),
)


@given(contents, st.booleans())
def test_writing_then_reading_is_the_identity(content: Any, tensors: bool) -> None:
    data = torch_bytes(content, stem="law", tensors=tensors)
    assert_same(parse_torch(data, "x").content, content)
    assert torch_bytes(content, stem="law", tensors=tensors) == data


@given(contents, st.booleans())
def test_torch_reads_what_is_written(content: Any, tensors: bool) -> None:
    torch = pytest.importorskip("torch")
    data = torch_bytes(content, stem="law", tensors=tensors)
    loaded = torch.load(io.BytesIO(data), weights_only=tensors)  # noqa: TID251 - an oracle
    assert_same(own(plain(loaded)), content)


def own(value: Any) -> Any:
    """Copies of arrays, which torch hands out over memory of its own."""
    if isinstance(value, dict):
        return {key: own(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(own, value))
    return value.copy() if isinstance(value, np.ndarray) else value


@given(contents)
def test_what_torch_writes_is_read(content: Any) -> None:
    assert_same(parse_torch(saved(content), "x").content, content)


@pytest.mark.parametrize("tensors", [True, False])
def test_limits_hold_at_the_limit_and_not_above(tensors: bool) -> None:
    data = torch_bytes([[np.zeros(10)]], stem="x", tensors=tensors)
    parse_torch(data, "x", Limits(elements=10, nesting=3))
    with pytest.raises(Unsafe, match="extents from 0 to 9"):
        parse_torch(data, "x", Limits(elements=9))
    with pytest.raises(Unsafe, match="levels of nesting"):
        parse_torch(data, "x", Limits(nesting=1))
    with pytest.raises(Unsafe, match="operations"):
        parse_torch(data, "x", Limits(opcodes=20))
