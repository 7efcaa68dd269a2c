"""Head models as pickles: what real writers make is read, what runs code never runs."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import FormatError, UncropError, UnsafeFileError
from converter.media.pickle_model import read_model_pickle
from fixtures.synthetic.flame import (
    as_real_names,
    flame2023,
    flame_arrays,
    generic_model,
    npy_of_dict,
    python2_pickle,
)


def read(tmp_path: Path, data: bytes, name: str = "model.pkl") -> dict[str, Any]:
    path = tmp_path / name
    path.write_bytes(data)
    return read_model_pickle(path)


# ------------------------------------------------------------------ what real writers make
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_python_3(tmp_path: Path, protocol: int) -> None:
    found = read(tmp_path, flame2023(protocol))
    for name, value in flame_arrays().items():
        np.testing.assert_array_equal(found[name], value)
        assert not isinstance(value, np.ndarray) or found[name].dtype == value.dtype


def test_chumpy_and_sparse_of_python_2(tmp_path: Path) -> None:
    data = generic_model()
    assert b"cchumpy.ch\nCh\n" in data
    assert b"cscipy.sparse.csc\ncsc_matrix\n" in data
    assert b"X" + (10).to_bytes(4, "little") + b"v_template" not in data  # texts as Python 2's
    found = read(tmp_path, data)
    for name, value in flame_arrays().items():
        np.testing.assert_array_equal(found[name], value)
    with as_real_names():  # Python's own interpreter, on stand-ins, agrees
        theirs = pickle.loads(data, encoding="latin1")
    np.testing.assert_array_equal(theirs["shapedirs"].x, found["shapedirs"])
    assert theirs["bs_type"] == found["bs_type"] == "lrotmin"


def test_real_scipy_matrices(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dense = np.where(np.random.default_rng(0).random((5, 40)) < 0.2, 1.5, 0.0)
    for kind in (sparse.csc_matrix, sparse.csr_matrix):
        for protocol in (2, 4):
            data = pickle.dumps({"J": kind(dense)}, protocol=protocol)
            np.testing.assert_array_equal(read(tmp_path, data)["J"], dense)


def test_a_dict_in_npy(tmp_path: Path) -> None:
    content = {"lmk_face_idx": np.arange(6).reshape(2, 3), "note": "x"}
    found = read(tmp_path, npy_of_dict(content), "embedding.npy")
    np.testing.assert_array_equal(found["lmk_face_idx"], content["lmk_face_idx"])
    np.save(tmp_path / "plain.npy", np.zeros(3))
    with pytest.raises(FormatError, match="one dict"):
        read_model_pickle(tmp_path / "plain.npy")


def test_tensors_in_a_dict(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    content = {
        "index": torch.arange(12).reshape(3, 4),
        "weights": torch.linspace(0, 1, 6).reshape(2, 3),
    }
    for data in (pickle.dumps(content, protocol=2), npy_of_dict(content)):
        found = read(tmp_path, data, "embedding.npy")
        np.testing.assert_array_equal(found["index"], content["index"].numpy())
        np.testing.assert_array_equal(found["weights"], content["weights"].numpy())


# ------------------------------------------------------------------ what is refused
class Runs:
    """Runs a shell command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


class Evaluates:
    def __reduce__(self) -> Any:
        return eval, ("__import__('os').mkdir('pwned')",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_code_never_runs(tmp_path: Path, protocol: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for bomb in (Runs("mkdir pwned"), Evaluates()):
        content = {**flame_arrays(), "v_template": bomb}
        data = pickle.dumps(content, protocol=protocol)
        with pytest.raises(UnsafeFileError, match=r"It asks Python to run (posix|nt|builtins|__b)"):
            read(tmp_path, data)
        with pytest.raises(UnsafeFileError):
            read(tmp_path, npy_of_dict({"a": bomb}), "a.npy")
        with pytest.raises(UnsafeFileError):
            read(tmp_path, python2_pickle({"x": [bomb]}))
    assert not (tmp_path / "pwned").exists()


CHUMPY = b"cchumpy.ch\nCh\n"
CSC = b"cscipy.sparse.csc\ncsc_matrix\n"
HOSTILE = {
    "a call of chumpy": b"\x80\x02}U\x01x" + CHUMPY + b")Rs.",
    "chumpy with arguments": b"\x80\x02}U\x01x" + CHUMPY + b"K\x01\x85\x81s.",
    "an object of a type": b"\x80\x02}U\x01xc__builtin__\nobject\n)\x81s.",
    "a state that is no dict": b"\x80\x02}U\x01x" + CHUMPY + b")\x81]bs.",
    "a reconstructor of dict": (
        b"\x80\x02}U\x01xccopy_reg\n_reconstructor\n(c__builtin__\nset\nc__builtin__\nobject\nNtRs."
    ),
    "a method of a set": b"\x80\x02}U\x01xc__builtin__\nset\n]\x85R}bs.",
    "another chumpy class": b"\x80\x02}U\x01xcchumpy.reordering\nSelect\n)\x81s.",
    "getattr": b"\x80\x02}U\x01xc__builtin__\ngetattr\n)Rs.",
    "a long name": b"\x80\x02}U\x01xc" + b"a" * 1000 + b"\nb\n)Rs.",
    "a storage of nothing": b"\x80\x02}U\x01xctorch.storage\n_load_from_bytes\nU\x02ab\x85Rs.",
    "a storage of a number": b"\x80\x02}U\x01xctorch.storage\n_load_from_bytes\nK\x01\x85Rs.",
    "an object dtype of many": (
        b"\x80\x02}U\x01xcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x05\x85cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK?tb\x89]tbs."
    ),
    "an instance": b"\x80\x02}U\x01x(ios\nsystem\ns.",
    "a set that is a key": b"\x80\x02}c__builtin__\nset\n]\x85RK\x01s.",
    "an array as a key": None,
    "a list": b"\x80\x02]K\x01a.",
    "protocol 0": b"(dp0\nS'x'\np1\nI1\ns.",
    "an extension": b"\x80\x02}U\x01x\x82\x01s.",
    "memory": b"\x80\x02}U\x01xT\xff\xff\xff\x7fab.",
    "bytes of exabytes": b"\x80\x05}\x8c\x01x\x96" + b"\xff" * 8 + b"ab.",
}


@pytest.mark.parametrize("name", [n for n, data in HOSTILE.items() if data])
def test_hostile_streams(tmp_path: Path, name: str) -> None:
    data = HOSTILE[name]
    assert data is not None
    with pytest.raises(UncropError) as error:
        read(tmp_path, data)
    assert len(str(error.value)) < 700
    assert "\n" not in str(error.value)


def sparse(**changes: Any) -> bytes:
    """A sparse 2 x 3 matrix, changed."""
    state = {
        "data": np.array([1.0, 2.0]), "indices": np.array([0, 1], np.int32),
        "indptr": np.array([0, 1, 2, 2], np.int32), "_shape": (2, 3), **changes,
    }  # fmt: skip

    class Matrix:
        pass

    matrix = Matrix()
    matrix.__dict__ = state
    import sys
    import types

    with as_real_names():
        module = types.ModuleType("scipy.sparse.csc")
        module.csc_matrix = Matrix  # type: ignore[attr-defined]
        Matrix.__module__, Matrix.__qualname__ = "scipy.sparse.csc", "csc_matrix"
        Matrix.__name__ = "csc_matrix"
        sys.modules["scipy.sparse.csc"] = module
        return pickle.dumps({"J": matrix}, protocol=2)


def test_a_sparse_matrix_in_order(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, sparse())["J"], [[1, 0, 0], [0, 2, 0]])


@pytest.mark.parametrize(
    "changes",
    [
        {"indices": np.array([0, 2], np.int32)},
        {"indices": np.array([0, -1], np.int32)},
        {"indices": np.array([0.0, 1.0])},
        {"indptr": np.array([0, 2, 1, 2], np.int32)},
        {"indptr": np.array([0, 1, 2], np.int32)},
        {"indptr": np.array([0, 1, 2, 9], np.int32)},
        {"_shape": (2**40, 2**40)},
        {"_shape": (2**26, 2**20)},
        {"_shape": (-1, 3)},
        {"_shape": (2,)},
        {"_shape": [2, 3]},
        {"data": np.array([[1.0, 2.0]])},
        {"data": "x"},
        {"data": None},
    ],
)
def test_sparse_matrices_that_do_not_fit(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises((FormatError, UnsafeFileError)):
        read(tmp_path, sparse(**changes))


def test_a_chumpy_array_that_holds_itself(tmp_path: Path) -> None:
    itself = b"\x80\x02}U\x01x" + CHUMPY + b")\x81q\x00}U\x01xh\x00sbs."
    assert read(tmp_path, itself) == {"x": None}


def test_cut_and_changed_files(tmp_path: Path) -> None:
    """Every outcome is a dict or one of our errors, and quick."""
    content = {"a": np.arange(6.0), "b": [1, 2.5, "x"]}
    whole = [pickle.dumps(content, protocol=p) for p in (2, 4, 5)]
    whole += [python2_pickle(content), npy_of_dict(content), sparse()]
    rng = np.random.default_rng(0)
    begin = time.process_time()
    n_read = 0
    for data in whole:
        for length in range(0, len(data), 3):
            with pytest.raises(UncropError):
                read(tmp_path, data[:length])
        for _ in range(150):
            changed = bytearray(data)
            for at in rng.integers(0, len(data), 3):
                changed[at] = rng.integers(0, 256)
            try:
                read(tmp_path, bytes(changed))
                n_read += 1
            except UncropError:
                pass
    assert 0 < n_read < 900
    assert time.process_time() - begin < 30


def test_an_array_as_a_key_or_a_name(tmp_path: Path) -> None:
    """Comparing an array with a name would compare element by element."""
    array = pickle.dumps(np.arange(3.0), protocol=2)[2:-1]
    for stream in (
        b"\x80\x02}" + array + b"K\x01s.",
        b"\x80\x02}U\x01x" + array + b")\x81s.",
        b"\x80\x02}U\x01xcnumpy\ndtype\n" + array + b"K\x00K\x01\x87Rs.",
        b"\x80\x02}U\x01xccopy_reg\n_reconstructor\n(" + array + array + b"NtRs.",
        b"\x80\x02}U\x01x" + CSC + b")\x81}U\x06_shape" + array + b"sbs.",
    ):
        with pytest.raises(UncropError):
            read(tmp_path, stream)
