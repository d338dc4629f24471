#!/usr/bin/env python3
"""Golden cases of ONNX's operator Attention: the node tests that the onnx package generates, as they are.

All go into one file, attention.safetensors: tensors case/<name>/input/<input> and case/<name>/output/<output>, and for
each case a metadata entry <name> with its attributes, opset, names in order and tolerances as JSON.
"""

import argparse
import pathlib
import sys
import warnings

import numpy as np
import onnx

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import golden  # noqa: E402


def collect():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the collector runs every operator's tests
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases("Attention")
    # An expanded case is the same data through the operator's function body.
    return [case for case in cases if "_expanded" not in case.name]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to (default: beside this file)")
    out = parser.parse_args().out
    tensors = {}
    metadata = {}
    with_matrix = 0
    for case in collect():
        (node,) = case.model.graph.node
        assert node.op_type == "Attention" and len(case.data_sets) == 1, case.name
        inputs, outputs = ([name for name in names if name] for names in (node.input, node.output))
        for kind, names, arrays in zip(("input", "output"), (inputs, outputs), case.data_sets[0]):
            assert len(names) == len(arrays), case.name
            for name, array in zip(names, arrays):
                tensors[f"case/{case.name}/{kind}/{name}"] = np.asarray(array)
        rtol = case.rtol
        if any(array.dtype.name == "bfloat16" for array in case.data_sets[0][1]):
            rtol = max(rtol, 2**-6)  # as the onnx package's own runner has it
        metadata[case.name] = golden.to_json({
            "attributes": {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
            "opset": case.model.opset_import[0].version,
            "inputs": inputs,
            "outputs": outputs,
            "rtol": rtol,
            "atol": case.atol,
        })  # fmt: skip
        with_matrix += "qk_matmul_output" in outputs
    metadata["onnx_version"] = onnx.__version__
    path = out / "attention.safetensors"
    golden.save(path, tensors, metadata)
    cases = len(metadata) - 1
    print(f"{cases} cases, {with_matrix} with qk_matmul_output, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
