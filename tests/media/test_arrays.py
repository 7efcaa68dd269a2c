"""npy and npz files: what numpy writes is read exactly, and hostile headers cost nothing."""

from __future__ import annotations

import io
import os
import pickle
import struct
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
from converter.media.arrays import parse_npy, read_npy, read_npz, write_npy
from converter.media.limits import Limits
from fixtures.hostile.arrays import EIGHT, HOSTILE, header, npy


def assert_same(found: Any, wanted: Any) -> None:
    assert type(found) is np.ndarray
    assert found.dtype == wanted.dtype.newbyteorder("=")
    assert found.shape == wanted.shape
    assert found.flags.c_contiguous
    assert found.flags.owndata
    assert found.flags.writeable
    assert found.tobytes() == wanted.astype(found.dtype).tobytes()


dtypes = st.sampled_from([f"{o}{n}" for o in "<>" for n in ["f2", "f4", "f8", "i2", "i4", "i8"]])
dtypes |= st.sampled_from(["<u2", "<u4", ">u8", "|i1", "|u1", "|b1"])
arrays = dtypes.flatmap(
    lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=0, min_side=0, max_dims=5))
)


@given(arrays, st.booleans(), st.sampled_from([(1, 0), (2, 0), (3, 0), None]))
def test_reads_what_numpy_writes(array: Any, fortran: bool, version: Any) -> None:
    buffer = io.BytesIO()
    value = np.array(array, order="F") if fortran else array
    np.lib.format.write_array(buffer, value, version=version, allow_pickle=False)
    assert_same(parse_npy(buffer.getvalue(), "x"), array)


@given(arrays)
def test_numpy_reads_what_is_written(array: Any) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    write_npy(first, array)
    write_npy(second, np.array(array, order="F"))
    assert first.getvalue() == second.getvalue()
    assert_same(parse_npy(first.getvalue(), "x"), array)
    loaded = np.load(io.BytesIO(first.getvalue()), allow_pickle=False)  # noqa: TID251 - an oracle
    assert_same(loaded.copy(), array)


def test_files_are_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "00001.npy"
    landmarks = np.arange(136, dtype=np.float32).reshape(68, 2)
    write_npy(path, landmarks)
    assert_same(read_npy(path), landmarks)
    with pytest.raises(MissingInputError, match=r"00002\.npy"):
        read_npy(tmp_path / "00002.npy")
    with pytest.raises(OutputError, match=tmp_path.name):
        write_npy(tmp_path, landmarks)
    for wrong in (np.array(["a"]), np.array([None]), np.array([1j])):
        with pytest.raises(OutputError, match="plain numbers"):
            write_npy(path, wrong)


def test_headers_of_other_writers_are_read() -> None:
    data = struct.pack("<2f", 1, 2)
    wanted = np.array([1, 2], np.float32)
    for text in (
        header(),
        "{'shape': (2,), 'fortran_order': False, 'descr': '<f4'}",
        "{'descr':'<f4','fortran_order':False,'shape':(2,)}       \n",
        header(shape="(2L,)"),
    ):
        assert_same(parse_npy(npy(text, data), "x"), wanted)


@pytest.mark.shared
def test_shared_landmarks_are_read_as_numpy_does(shared_data: Path) -> None:
    paths = sorted(shared_data.rglob("*.npy"))
    assert paths
    for path in paths:
        assert_same(read_npy(path), np.load(path, allow_pickle=False))  # noqa: TID251 - an oracle


# --- hostile headers ----------------------------------------------------------------------------


@pytest.mark.parametrize("key", HOSTILE)
def test_a_hostile_npy_is_refused(key: str) -> None:
    data, kind, message = HOSTILE[key]
    with pytest.raises(kind, match=message) as caught:
        parse_npy(data, "x")
    assert type(caught.value) is kind
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


class Runs:
    def __reduce__(self) -> Any:
        return os.mkdir, ("canary-was-here",)


def test_a_pickle_named_npy_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in range(6):
        path = tmp_path / "00001.npy"
        path.write_bytes(pickle.dumps(Runs(), protocol))
        with pytest.raises(UncropError) as caught:
            read_npy(path)
        if protocol >= 2:
            assert type(caught.value) is Unsafe
            assert "bare pickle" in str(caught.value)
    assert not Path("canary-was-here").exists()


def test_object_arrays_do_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "a.npy", np.array([Runs()], object), allow_pickle=True)
    with pytest.raises(Unsafe, match="arrays of objects"):
        read_npy(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", a=np.array([Runs()], object))
    with pytest.raises(Unsafe, match=r"a\.npz: a\.npy: .*arrays of objects"):
        read_npz(tmp_path / "a.npz")
    assert not Path("canary-was-here").exists()


def test_a_cut_or_flipped_file_is_no_crash() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(6.0).reshape(2, 3))
    data = buffer.getvalue()
    for n_bytes in range(len(data)):
        with pytest.raises(UncropError):
            parse_npy(data[:n_bytes], "x")
    for i in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[i // 8] ^= 1 << i % 8
        try:
            array = parse_npy(bytes(flipped), "x")
        except UncropError:
            continue
        assert array.nbytes == 48


@given(st.binary(max_size=200))
def test_arbitrary_headers_are_no_crash(noise: bytes) -> None:
    with pytest.raises(UncropError):
        parse_npy(npy(noise, EIGHT), "x")


@given(st.text("{}()[],: '\"-0123456789LTrueFalsdcfontn_ohp<>|i", max_size=100))
def test_headers_of_the_right_letters_are_no_crash(noise: str) -> None:
    with pytest.raises(UncropError):
        parse_npy(npy(noise, EIGHT), "x")


# --- npz ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_savez_writes(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "a.npz"
    wanted = {
        "fov": np.array([20.0], np.float32),
        "K": np.asfortranarray(np.arange(9.0).reshape(1, 3, 3)),
        "parsing": np.zeros((1, 256, 256), np.int64),
        "a/b": np.zeros((0, 3)),
        "scalar": np.array(3),
    }
    save(path, **wanted)
    found = read_npz(path)
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert_same(found[name], array)
    assert list(read_npz(path, only=["fov", "absent"])) == ["fov"]


def test_the_same_limits_hold_for_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(100))
    read_npz(path, Limits(member_bytes=928))
    with pytest.raises(Unsafe, match="at most 927 bytes"):
        read_npz(path, Limits(member_bytes=927))


def test_only_arrays_may_be_in_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"hello")
    with pytest.raises(FormatError, match=r"a\.txt: expected an array"):
        read_npz(path)


def test_no_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(pickle.dumps(Runs(), 2))
    with pytest.raises(UncropError):
        read_npz(path)
