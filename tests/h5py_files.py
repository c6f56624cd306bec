# SPDX-License-Identifier: Apache-2.0
"""Case files as another program sees, writes and damages them.

h5py_files.py view FILE         checks layout, labels and filters of a file written by write_case
h5py_files.py rewrite FILE DIR  writes the same case in other ways, all of which read_case accepts
h5py_files.py spoil FILE DIR    writes NAME.h5 that read_case refuses; NAME.txt holds what the message has to contain
"""
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np

ROOT = ["schema", "schema_version", "case", "gate", "normalize", "eps", "dtype", "stabilizer_init", "chunk_size"]
LABELS = {"q": "B NH S DHQK", "v": "B NH S DHV", "i": "B NH S", "c_initial": "B NH DHQK DHV", "m_initial": "B NH"}


def numbered(name, shape):
    """The values of numbered() in small_case.hpp, in row-major order, for float32."""
    state = ord(name[0]) * 1000 + len(name)
    values = []
    for _ in range(int(np.prod(shape))):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        values.append((state >> 40) / 2.0**23 - 1)
    return np.array(values).astype(np.float32).reshape(shape)


def view(path):
    with h5py.File(path, "r", libver="v110") as file:
        for name, labels in LABELS.items():
            data = file["inputs"][name]
            assert np.array_equal(data[()], numbered(name, data.shape)), name
            assert data.dtype == np.dtype("<f4"), data.dtype
            assert data.chunks and data.shuffle and data.compression == "gzip" and data.fletcher32, name
            assert [dim.label for dim in data.dims] == labels.split(), name
        assert file["reference/outputs/h"].dtype == np.dtype("<f8")
        assert file["kernel/outputs/h"].dtype == np.dtype("<f4")
        assert file["kernel"].attrs["device"].decode() == 'Zürich "1"'
        assert file.attrs["chunk_size"] == 2 and file.attrs["eps"] == 1e-3


def text_of(value):
    return value.decode() if isinstance(value, bytes) else value


def rewrite(source, directory):
    """Each way is (attribute conversion, keyword arguments for a dataset, its dtype)."""

    def fixed(value):
        return np.bytes_(text_of(value).encode()) if isinstance(value, (str, bytes)) else value

    def padded(value):
        if not isinstance(value, (str, bytes)):
            return value
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(40)
        kind.set_strpad(h5py.h5t.STR_SPACEPAD)
        return np.bytes_(text_of(value).encode().ljust(40)), kind

    def narrow(value):
        value = text_of(value)
        return np.int8(value) if isinstance(value, np.integer) else value

    def wide(value):
        value = text_of(value)
        return np.uint64(value) if isinstance(value, np.integer) and value >= 0 else value

    def big_endian(value):
        value = text_of(value)
        return value if isinstance(value, str) else np.array(value, value.dtype.newbyteorder(">"))

    def listed(value):
        return np.array([text_of(value)], dtype=object if isinstance(value, (str, bytes)) else None)

    ways = {
        "plain": (text_of, {}, None),
        "fixed_strings": (fixed, {"chunks": True}, None),
        "padded_strings": (padded, {}, None),
        "int8": (narrow, {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": True}, None),
        "uint64": (wide, {"compression": 1, "chunks": True}, None),
        "float64": (text_of, {"maxshape": "free"}, "<f8"),
        "big_endian": (big_endian, {}, ">f8"),
        "arrays_of_one": (listed, {}, None),
    }
    for name, (convert, how, dtype) in ways.items():
        libver = "latest" if name in ("plain", "float64") else "earliest"
        with h5py.File(source, "r") as old, h5py.File(Path(directory) / f"{name}.h5", "w", libver=libver) as new:
            def write_attributes(target, source_object):
                for key, value in source_object.attrs.items():
                    value = convert(value)
                    if isinstance(value, tuple):
                        data, kind = value
                        attribute = h5py.h5a.create(target.id, key.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))
                        attribute.write(np.array(data, dtype="S40"), kind)
                    else:
                        dtype_of = h5py.string_dtype() if isinstance(value, np.ndarray) and value.dtype == object else None
                        target.attrs.create(key, value, dtype=dtype_of)

            def copy(path, item):
                if isinstance(item, h5py.Group):
                    write_attributes(new.require_group(path), item)
                else:
                    options = {k: item.shape if v == "free" else v for k, v in how.items()}
                    if how.get("maxshape") == "free":
                        options["maxshape"] = (None,) * len(item.shape)
                    new.create_dataset(path, data=item[()], dtype=dtype or item.dtype, **options)

            write_attributes(new, old)
            old.visititems(copy)
            new.create_group("notes")["anything"] = np.arange(3)
            new.attrs["normalize"] = np.bool_(True)
            new.attrs["blocks"] = np.array([[64, 128], [1, 2]], dtype=np.int16)
            new.attrs["names"] = ["a", "longer"]
            if name == "plain":
                new["inputs"].move("q", "hidden")
                new["elsewhere"] = new["inputs/hidden"]
                del new["inputs/hidden"]
                new["inputs/q"] = h5py.SoftLink("/elsewhere")


def replaced(path, data, **how):
    def edit(file):
        del file[path]
        file.create_dataset(path, data=data, **how)

    return edit


def element(path, index, value):
    def edit(file):
        file[path][index] = value

    return edit


def attribute(name, value, where="/"):
    return lambda file: file[where].attrs.__setitem__(name, value)


def without(path):
    return lambda file: file.__delitem__(path)


def huge(file):
    del file["inputs/q"]
    file.create_dataset("inputs/q", shape=(2, 1, 2**40, 3), dtype="f4", chunks=(1, 1, 1024, 3))


def huge_everywhere(file):
    for name in ("q", "k", "v", "i", "f"):
        old = file["inputs"][name]
        shape = (2**20, 2**20, 2**10) + old.shape[3:]
        del file["inputs"][name]
        file.create_dataset(f"inputs/{name}", shape=shape, dtype="f4", chunks=(1,) * len(shape))


def huge_chunk(file):
    del file["inputs/q"]
    data = file.create_dataset("inputs/q", shape=(2, 1, 5, 3), maxshape=(None,) * 4, dtype="f4", chunks=(2, 1024, 1024, 511))
    del data


def external(file):
    del file["inputs/q"]
    file.create_dataset("inputs/q", shape=(2, 1, 5, 3), dtype="f4", external=[("/dev/zero", 0, 120)])


def virtual(file):
    layout = h5py.VirtualLayout(shape=(2, 1, 5, 3), dtype="f4")
    layout[...] = h5py.VirtualSource(".", "inputs/k", shape=(2, 1, 5, 3))
    del file["inputs/q"]
    file.create_virtual_dataset("inputs/q", layout)


def half_written(file):
    data = file["inputs/q"][()]
    del file["inputs/q"]
    file.create_dataset("inputs/q", shape=data.shape, dtype="f4", chunks=(1, 1, 5, 3))[0] = data[0]


def moved_away(file):
    del file["inputs/q"]
    file["inputs/q"] = h5py.ExternalLink("other.h5", "/q")


def dangling(file):
    del file["inputs/q"]
    file["inputs/q"] = h5py.SoftLink("/nowhere")


def bare(file):
    """What someone has who knows of tensors only, and has called one of them otherwise."""
    for name in list(file.attrs):
        del file.attrs[name]
    file.move("inputs/q", "inputs/query")
    del file["inputs/f"]


def circular(file):
    del file["kernel/outputs"]
    file["kernel/outputs"] = h5py.SoftLink("/kernel/outputs")


SPOILED = {
    "no_schema": (lambda file: file.attrs.__delitem__("schema"), "attribute schema of / is missing"),
    "other_schema": (attribute("schema", "netcdf\nfile"), 'attribute schema of / is "netcdf?file"; expected "mlstm-case"'),
    "future_version": (attribute("schema_version", 2), "attribute schema_version of / is 2; expected 1 (the file was written"),
    "version_text": (attribute("schema_version", "1"), 'attribute schema_version of / is the string "1"; expected an integer'),
    "version_real": (attribute("schema_version", 1.0), "attribute schema_version of / is the number 1; expected an integer"),
    "gate": (attribute("gate", "relu"), 'attribute gate of / is "relu"; expected one of exp, sigmoid'),
    "gate_number": (attribute("gate", 3), "attribute gate of / is the integer 3; expected a string"),
    "dtype": (attribute("dtype", "int8"), 'attribute dtype of / is "int8"; expected float64'),
    "tfloat32": (attribute("dtype", "tfloat32"), 'attribute dtype of / is "tfloat32"; expected float64, float32, float16 or bfloat16'),
    "init": (attribute("stabilizer_init", "one"), 'attribute stabilizer_init of / is "one"; expected one of zero, neg_inf'),
    "normalize_2": (attribute("normalize", 2), "attribute normalize of / is 2; expected 0 or 1"),
    "normalize_exp": (attribute("normalize", 0), "normalize is 0 with the exp gate"),
    "eps_negative": (attribute("eps", -1e-6), "eps is -0.000001; expected a finite value >= 0"),
    "eps_nan": (attribute("eps", np.nan), "eps is nan"),
    "eps_text": (attribute("eps", "small"), 'attribute eps of / is the string "small"; expected a number'),
    "chunk_negative": (attribute("chunk_size", -1), "chunk_size is -1"),
    "chunk_huge": (attribute("chunk_size", np.uint64(2**64 - 1)), "attribute chunk_size of / is an array or of another type"),
    "chunk_list": (attribute("chunk_size", [64, 64]), "attribute chunk_size of / is an array or of another type"),
    "reference_attribute": (lambda file: file.attrs.__setitem__("link", file.ref), 'attribute "link" of / is a reference'),
    "dtype_short": (attribute("dtype", "bf16"), 'attribute dtype of / is "bf16"; expected float64, float32, float16 or '
                    "bfloat16; did you mean bfloat16?"),
    "bare": (bare, "11 errors: (1) attribute schema of / is missing; expected \"mlstm-case\", (2) attribute schema_version "
             "of / is missing; expected 1, (3) attribute case of / is missing; expected a string, the name of the problem, "
             "(4) attribute gate of / is missing; expected \"exp\" or \"sigmoid\", (5) attribute normalize of / is missing; "
             "expected 0 or 1 (1 with the exp gate), (6) attribute eps of / is missing; expected a number >= 0, (7) attribute "
             "dtype of / is missing; expected float64, float32, float16 or bfloat16, (8) attribute stabilizer_init of / is "
             "missing; expected \"zero\" or \"neg_inf\", (9) attribute chunk_size of / is missing; expected an integer, 0 if "
             "not applicable, (10) /inputs/q is missing; expected a dataset (B,NH,S,DHQK), (11) /inputs/f is missing; "
             "expected a dataset (B,NH,S)"),
    "misspelt_operands": (attribute("operand_dtyp", "tfloat32", "kernel"),
                          'attribute "operand_dtyp" of /kernel is unknown; expected operand_dtype'),
    "misspelt_in_capitals": (attribute("Saved_DType", "float32", "kernel"),
                             'attribute "Saved_DType" of /kernel is unknown; expected saved_dtype'),
    "misspelt_cotangents": (lambda file: file.move("cotangents", "cotangent"),
                            'object "cotangent" of / is unknown; expected cotangents'),
    "misspelt_gradients": (lambda file: file.move("kernel/gradients", "kernel/gradient"),
                           'object "gradient" of /kernel is unknown; expected gradients'),
    "formulation": (attribute("formulation", "chunked", "kernel"),
                    'attribute formulation of /kernel is "chunked"; expected one of recurrent, parallel, chunkwise'),
    "other_formulation": (attribute("formulation", "recurrent", "kernel"),
                          "attribute formulation of /kernel is recurrent, but the variant is chunkwise--native_eigen_ownbw; "
                          "expected chunkwise"),
    "saved_dtype": (attribute("saved_dtype", "fp32", "kernel"), 'attribute saved_dtype of /kernel is "fp32"; expected float64'),
    "rounding": (attribute("rounding", "down", "kernel"), 'attribute rounding of /kernel is "down"; expected "nearest" or "truncate"'),
    "saved_dtype_number": (attribute("saved_dtype", 32, "kernel"), "attribute saved_dtype of /kernel is no string"),
    "gate_gradient": (attribute("gate_gradient", "stradling", "kernel"),
                      'attribute gate_gradient of /kernel is "stradling"; expected "straddling"'),
    "no_inputs": (without("inputs"), "/inputs is missing"),
    "inputs_dataset": (replaced("inputs", np.zeros(3)), "/inputs is not a group"),
    "no_q": (without("inputs/q"), "/inputs/q is missing"),
    "no_k": (without("inputs/k"), "/inputs/k is missing"),
    "no_f": (without("inputs/f"), "/inputs/f is missing"),
    "unknown_input": (lambda file: file.__setitem__("inputs/g", np.zeros(3)), '/inputs holds "g"; expected only q, k'),
    "q_rank": (replaced("inputs/q", np.zeros((5, 3), "f4")), "/inputs/q has shape (5,3); expected (B,NH,S,DHQK)"),
    "q_scalar": (replaced("inputs/q", np.float32(1)), "/inputs/q is a scalar"),
    "q_group": (lambda file: (file.__delitem__("inputs/q"), file.create_group("inputs/q")), "/inputs/q is not a dataset"),
    "k_shape": (replaced("inputs/k", np.zeros((2, 1, 5, 4), "f4")), "/inputs/k has shape (2,1,5,4); expected (2,1,5,3)"),
    "i_rank": (replaced("inputs/i", np.zeros((2, 1, 5, 1), "f4")), "/inputs/i has shape (2,1,5,1); expected (2,1,5)"),
    "empty_axis": (replaced("inputs/q", np.zeros((2, 1, 0, 3), "f4")), "S is 0; expected a size of at least 1"),
    "integers": (replaced("inputs/q", np.zeros((2, 1, 5, 3), "i4")), "/inputs/q holds 4-byte integers; expected float32"),
    "float16": (replaced("inputs/q", np.zeros((2, 1, 5, 3), "f2")), "/inputs/q holds 2-byte floats; expected float32"),
    "complex": (replaced("inputs/q", np.zeros((2, 1, 5, 3), "c8")), "/inputs/q holds 8-byte elements of another class"),
    "strings": (replaced("inputs/q", np.full((2, 1, 5, 3), b"x")), "/inputs/q holds 1-byte strings"),
    "nan_input": (element("inputs/q", (0, 0, 3, 1), np.nan), "/inputs/q[0,0,3,1] is nan; expected a finite value"),
    "inf_gate": (element("inputs/f", (1, 0, 4), np.inf), "/inputs/f[1,0,4] is inf; expected a finite value"),
    "not_bfloat16": (element("inputs/v", (1, 0, 0, 2), 0.1), "/inputs/v[1,0,0,2] is 0.1"),
    "state_not_float32": (
        replaced("inputs/c_initial", np.full((2, 1, 3, 4), 0.1)), "/inputs/c_initial[0,0,0,0] is 0.1; expected a value "
        "representable in float32"),
    "some_states": (without("inputs/n_initial"), "/inputs/n_initial is missing"),
    "no_dh": (without("cotangents/h"), "/cotangents/h is missing"),
    "nan_dh": (element("cotangents/h", (0, 0, 0, 0), np.nan), "/cotangents/h[0,0,0,0] is nan"),
    "nan_reference": (element("reference/gradients/exact/k", (0, 0, 0, 0), np.nan), "/reference/gradients/exact/k[0,0,0,0] is nan"),
    "reference_shape": (replaced("reference/outputs/h", np.zeros((2, 1, 5, 3))), "/reference/outputs/h has shape (2,1,5,3)"),
    "unknown_output": (lambda file: file.__setitem__("kernel/outputs/dq", np.zeros(3)), '/kernel/outputs holds "dq"'),
    "truncated_output": (replaced("kernel/outputs/h", np.zeros((2, 1, 4, 4), "f4")), "/kernel/outputs/h has shape (2,1,4,4)"),
    "convention": (attribute("gradient_convention", "both", "kernel"), 'attribute gradient_convention of /kernel is "both"'),
    "operand_dtype": (attribute("operand_dtype", "fp8", "kernel"), 'attribute operand_dtype of /kernel is "fp8"'),
    "huge": (huge, "/inputs/q holds 0 of its chunks"),
    "huge_everywhere": (huge_everywhere, "/inputs/q holds 0 of its chunks"),
    "huge_contiguous": (
        lambda file: (file.__delitem__("inputs/q"), file.create_dataset("inputs/q", shape=(2, 1, 2**40, 3), dtype="f4")),
        "but 0 bytes are stored"),
    "huge_chunk": (huge_chunk, "expected at most 2^30"),
    "half_written": (half_written, "/inputs/q holds 1 of its chunks; expected all 2"),
    "unknown_filter": (
        replaced("inputs/k", np.zeros((2, 1, 5, 3), "f4"), compression="lzf"), '/inputs/k is packed by the filter "lzf"'),
    "external_file": (external, "/inputs/q lies in external files"),
    "virtual": (virtual, "/inputs/q has a virtual layout"),
    "external_link": (moved_away, '/inputs: link "q" leaves the file'),
    "dangling": (dangling, "/inputs/q"),
    "circular": (circular, "/kernel/outputs"),
}


def spoil(source, directory):
    for name, (edit, expected) in SPOILED.items():
        path = Path(directory) / f"{name}.h5"
        shutil.copyfile(source, path)
        with h5py.File(path, "r+", libver=("v110", "v110")) as file:
            edit(file)
        path.with_suffix(".txt").write_text(expected)
    whole = Path(source).read_bytes()
    for name, data, expected in [
        ("empty", b"", "the file is empty; expected an HDF5 file"),
        ("text", b"q,k,v\n1,2,3\n", "not a readable HDF5 file"),
        ("truncated", whole[: len(whole) // 2], "truncated file"),
        ("only_signature", whole[:8], "not a readable HDF5 file"),
    ]:
        (Path(directory) / f"{name}.h5").write_bytes(data)
        (Path(directory) / f"{name}.txt").write_text(expected)


if __name__ == "__main__":
    {"view": view, "rewrite": rewrite, "spoil": spoil}[sys.argv[1]](*sys.argv[2:])
