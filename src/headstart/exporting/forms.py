"""The forms that an export is written in: ONNX and OpenVINO, fp32 or int8. Each file also says by itself how to read its answers."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.bundle.record import IR_FILE, NETWORK_FILE, Record
from headstart.features import runtime

OPSET = 21
"""of ONNX: the newest that all versions of ONNX Runtime run which headstart takes (1.20 and later)"""

ABOUT_KEY = "headstart"
"""metadata key (of ONNX; in OpenVINO's form the path `headstart/about`) of the JSON that tells how to read the network's answers"""

log = logging.getLogger("headstart")


def write_onnx(source: Path, folder: Path, record: Record, calibrate: Sequence[np.ndarray] | None) -> None:
    """model.onnx in `folder`: `source` in the current opset, int8 where there are pictures to calibrate on, with its metadata.

    Args: calibrate: uint8 [px, px, 3] each; None: fp32.
    """
    import onnx

    model = onnx.load(source)
    if calibrate is not None:
        has_attention = any(node.op_type == "Softmax" for node in model.graph.node)
        model = _quantised(model, [{"image": picture[None]} for picture in calibrate], has_attention=has_attention)
    model = _current_opset(model)
    model.doc_string = "input: uint8 [n, px, px, 3], RGB, prepared as metadata_props['headstart'] says; output: logits [n, classes]"
    model.producer_name = "headstart"
    del model.metadata_props[:]
    for key, value in {ABOUT_KEY: about(record), "licence": record.licence or ""}.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    onnx.save(model, folder / NETWORK_FILE)


def write_openvino(source: Path, folder: Path, record: Record, calibrate: Sequence[np.ndarray] | None) -> None:
    """model.xml and model.bin in `folder`, as `write_onnx`."""
    openvino = runtime.import_openvino()
    model = openvino.Core().read_model(source)
    if calibrate is not None:
        has_attention = any(operation.get_type_name() == "Softmax" for operation in model.get_ops())
        model = _quantised(model, [picture[None] for picture in calibrate], has_attention=has_attention)
    model.set_rt_info(about(record), [ABOUT_KEY, "about"])
    openvino.save_model(model, folder / IR_FILE, compress_to_fp16=False)  # halves the file and would cost up to 0.001 of probability


WRITERS: dict[str, Callable[[Path, Path, Record, Sequence[np.ndarray] | None], None]] = {"onnx": write_onnx, "openvino": write_openvino}


def about(record: Record) -> str:
    """What a lone file must say of itself: bundle.json's fields but those that check a bundle. JSON in ASCII."""
    checks = ("format", "files", "golden", "digest")
    return json.dumps({key: value for key, value in record.to_json().items() if key not in checks}, ensure_ascii=True, sort_keys=True)


def opset_of(file: Path) -> int:
    """Version of ONNX's own operators in a file."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    return int(next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx")))


def _current_opset(model: Any) -> Any:
    """The same network in `OPSET`, or as it is where an operator has no way there; the certificate says which."""
    from onnx import version_converter

    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:  # of many kinds, each for an operator it does not know
        log.info("the network stays in its opset: %s", error)
        return model


def _quantised(model: Any, pictures: Sequence[Any], *, has_attention: bool) -> Any:
    """Post-training quantisation, of either form. Source: docs/LOG.md, "Exports"."""
    with _silent():
        nncf = runtime.import_without_telemetry("nncf")
        kind = nncf.ModelType.TRANSFORMER if has_attention else None
        return nncf.quantize(model, nncf.Dataset(list(pictures)), subset_size=len(pictures), model_type=kind)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what the quantisers print and warn of, most of it to stdout, which is for results."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
