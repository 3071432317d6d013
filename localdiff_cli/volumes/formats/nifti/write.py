"""Write NIfTI files: the input's geometry to the bit, the same bytes every time, no free text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray

from localdiff_cli.volumes.formats.nifti import is_gzip, is_pair, pair_of
from localdiff_cli.volumes.formats.seam import Content, Put

if TYPE_CHECKING:
    from localdiff_cli.volumes.volume import Volume


def output_header(volume: Volume, content: Content) -> Any:
    """Return the input's NIfTI header for new voxel values: geometry kept, everything that no longer holds set rightly.

    Free-text fields are emptied and extensions left out: they may carry patient text.
    """
    header = volume.header.copy()
    header.set_data_dtype(content.dtype)
    for field in ("cal_min", "cal_max", "intent_p1", "intent_p2", "intent_p3"):
        header[field] = 0
    header["intent_code"] = 0
    for field in ("aux_file", "intent_name", "data_type", "db_name", "unused_str"):
        if field in header.structarr.dtype.names:
            header[field] = b""
    for field in ("glmin", "glmax", "extents", "session_error"):
        if field in header.structarr.dtype.names:
            header[field] = 0
    header["descrip"] = content.description.encode("ascii", "replace")[:79]
    header["scl_slope"], header["scl_inter"] = content.scale
    return header


@contextmanager
def stream(path: Path, volume: Volume, content: Content) -> Iterator[Put]:
    """Take planes of the last stored axis as they come."""
    header = output_header(volume, content)
    version = b"2" if isinstance(header, nib.Nifti2Header) else b"1"
    data, prefix = path, b""
    if is_pair(path):
        head, data = pair_of(path)
        header["magic"], header["vox_offset"] = b"ni" + version, 0
        head.write_bytes(header.binaryblock)
    else:
        header["magic"], header["vox_offset"] = b"n+" + version, header.single_vox_offset
        prefix = header.binaryblock.ljust(header.single_vox_offset, b"\0")
    dtype = header.get_data_dtype()
    with ExitStack() as stack:
        file: Any = stack.enter_context(data.open("wb"))
        if is_gzip(data):
            file = stack.enter_context(igzip.IGzipFile(filename="", fileobj=file, mode="wb", compresslevel=1, mtime=0))
        file.write(prefix)

        def put(plane: NDArray[Any]) -> None:
            file.write(np.asarray(plane, dtype=dtype).tobytes(order="F"))

        yield put
