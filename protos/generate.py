"""Writes the Python beside every .proto and the descriptor set that the gateway reads; `--check` only compares."""

import filecmp
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import resources, util
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).parent.resolve()
OURS, VENDORED = Path("concord"), Path("buf")
DESCRIPTORS = OURS / "descriptors.binpb"
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi", DESCRIPTORS.name)


def google_api() -> Path:
    """The folder of google/api/*.proto, from googleapis-common-protos; found without importing it."""
    spec = util.find_spec("google.api")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("googleapis-common-protos is not installed: run `make`")
    return Path(next(iter(spec.submodule_search_locations))).parent.parent


def run(arguments: list[str]) -> None:
    """Runs protoc; ends the program when it fails (it has said why)."""
    includes = [".", str(google_api()), str(resources.files("grpc_tools") / "_proto")]
    if protoc.main(["protoc", *(f"-I{path}" for path in includes), *arguments]) != 0:
        sys.exit(1)


def generate(target: Path) -> None:
    """Writes everything below `target`; the same contracts give the same bytes."""
    os.chdir(ROOT)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # protoc-gen-mypy lies there
    vendored = sorted(str(path) for path in VENDORED.rglob("*.proto"))
    ours = sorted(str(path) for path in OURS.rglob("*.proto"))
    run([f"--python_out={target}", f"--mypy_out=quiet:{target}", *vendored, *ours])
    if not ours:
        return
    # A warning is an unused import, which buf cannot see in a descriptor set.
    descriptors = target / DESCRIPTORS
    run(["--fatal_warnings", "--include_imports", "--include_source_info", f"--descriptor_set_out={descriptors}", *ours])
    if services := [name for name in ours if name.endswith("_service.proto")]:
        run([f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}", *services])
    strip_foreign_comments(descriptors)


def strip_foreign_comments(descriptors: Path) -> None:
    """The comments of the files we import are most of the bytes, and nobody reads them here."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    for file in files.file:
        if not file.name.startswith(f"{OURS}/"):
            file.ClearField("source_code_info")
    descriptors.write_bytes(files.SerializeToString(deterministic=True))


def generated(root: Path) -> Iterator[Path]:
    """Every generated file below `root`, relative to it."""
    for folder in (OURS, VENDORED):
        for pattern in GENERATED:
            yield from (path.relative_to(root) for path in (root / folder).rglob(pattern))


def write(fresh: Path) -> None:
    """Puts the generated files below `fresh` in their places; a removed .proto takes its Python along."""
    for path in set(generated(ROOT)) - set(generated(fresh)):
        (ROOT / path).unlink()
    for path in generated(fresh):
        shutil.copyfile(fresh / path, ROOT / path)


def check(fresh: Path) -> int:
    """The number of generated files that are not what the contracts say; each is named."""
    wanted, present = set(generated(fresh)), set(generated(ROOT))
    wrong = dict.fromkeys(wanted - present, "missing") | dict.fromkeys(present - wanted, "has no .proto any more")
    for path in wanted & present:
        if not filecmp.cmp(fresh / path, ROOT / path, shallow=False):
            wrong[path] = "differs from its .proto"
    for path, why in sorted(wrong.items()):
        print(f"protos/{path}: {why}: run `make protos`", file=sys.stderr)
    return len(wrong)


def main() -> None:
    """Command line: no argument writes, `--check` compares."""
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit("usage: generate.py [--check]")
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))  # a failing protoc leaves the tree as it was
        if sys.argv[1:]:
            sys.exit(1 if check(Path(folder)) else 0)
        write(Path(folder))


if __name__ == "__main__":
    main()
