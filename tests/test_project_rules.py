"""Project rules that a test can check."""

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Collection
from graphlib import CycleError, TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pixelscope.errors import PACKAGES

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LONGEST = 60


def test_imports_keep_to_the_layers() -> None:
    done = subprocess.run(
        # Its cache is older than a renamed module now and then.
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_no_import_leads_back() -> None:
    """Imports inside functions count; those for type checkers alone do not."""
    modules = {module_name(path): path for path in SOURCES}
    graph = {name: imports_of(TREES[path], name, modules) for name, path in modules.items()}
    assert sum(map(len, graph.values())) > 500
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")


def imports_of(tree: ast.Module, name: str, modules: Collection[str]) -> set[str]:
    """Return the modules of ours that one imports, those inside functions too."""
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module` needs the module; the package itself only for other names.
            found |= members & set(modules) or {node.module}
    return {module for module in found if module in modules} - {name}


def requirements_of(*extras: str) -> list[Requirement]:
    """Return what the base install and these extras need, extras within extras too."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    waiting = list(extras)
    for extra in waiting:
        for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
            if requirement.name == PROJECT["name"]:
                waiting += sorted(requirement.extras - set(waiting))
            else:
                found.append(requirement)
    return found


def test_nothing_brings_torchvision() -> None:
    names = closure(requirements_of(*PROJECT["optional-dependencies"]))
    assert {"torch", "lightning-fabric", "kornia"} <= names
    assert "torchvision" not in names | pins().keys()


def test_everything_that_is_needed_is_pinned() -> None:
    needed = closure(requirements_of("test"))
    # torch names the exact versions of what it brings for CUDA, which differ from machine to machine.
    brought = re.compile(r"nvidia-|cuda-|triton|pip$|setuptools$")
    assert sorted(name for name in needed - pins().keys() if not brought.match(name)) == []


def test_pins_satisfy_what_is_required() -> None:
    for requirement in requirements_of("test", "bench"):
        assert requirement.specifier.contains(pins()[normal(requirement.name)]), requirement


def test_every_extra_is_one_that_an_error_may_name_or_a_collection() -> None:
    collections = {"bench", "dev", "docs", "mat", "runtime", "test"}
    assert set(PACKAGES.values()) | collections == set(PROJECT["optional-dependencies"])


def test_the_base_install_brings_nothing_that_only_training_needs() -> None:
    names = closure(requirements_of())
    assert {"numpy", "onnxruntime"} <= names
    assert not {"torch", "lightning-fabric", "scipy", "matplotlib", "jinja2", "requests", "pooch"} & names


def test_the_type_checker_reads_package_and_benchmarks() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert set(tools["pyright"]["include"]) == {"benchmarks", "src"}


def test_description_and_keywords_name_both_systems() -> None:
    for text in (PROJECT["description"], " ".join(PROJECT["keywords"])):
        assert "PixelDA" in text and "EndoVAE" in text


@pytest.mark.parametrize("release", ["2.6.2", "2.6.3"])
def test_the_malicious_releases_of_lightning_are_refused(release: str) -> None:
    (fabric,) = [r for r in requirements_of("train") if r.name == "lightning-fabric"]
    assert not fabric.specifier.contains(release)
    assert fabric.specifier.contains("2.6.4")


def test_nothing_is_unpickled() -> None:
    refused = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
    # The one exception: docs/decisions/0021-pretrained-features.md. It compares a SHA-256 before, and takes tensors alone.
    excepted = ROOT / "src/pixelscope/endovae/lite0.py"
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            modules = imported(node)
            assert not refused & {name.partition(".")[0] for name in modules}, f"{path}:{node.lineno}"  # type: ignore[attr-defined]
            if isinstance(node, ast.Call) and path == excepted and called(node) == "torch.load":
                assert "weights_only=True" in ast.unparse(node)
            elif isinstance(node, ast.Call):
                assert called(node) not in {"torch.load", "torch.save", "yaml.load", "yaml.unsafe_load"}, (
                    f"{path}:{node.lineno}"
                )
            if isinstance(node, ast.Call) and called(node) in {"np.load", "numpy.load"}:
                # NumPy refuses pickles unless told otherwise; here it is said, so that a reader need not know.
                stated = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "allow_pickle"]
                assert stated == ["False"], f"{path}:{node.lineno}: allow_pickle=False"


def test_no_module_is_called_utils() -> None:
    drawers = {"utils", "util", "helpers", "misc", "common"}
    assert [path for path in SOURCES if path.stem in drawers or drawers & set(path.parts)] == []


def test_functions_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length(node)} lines"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length(node) > LONGEST
    ]
    assert long == []
    lengths = sorted(
        length(node)
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert statistics.median(lengths) < 10
    assert lengths[int(0.9 * len(lengths))] < 30


PRIVATE_WORDS = re.compile(
    r"\b(mend(s|ed|ing)?|sittings?|yardsticks?|(un)?begun|anew|lest|rite|in place of|of (its|their) own|gone on with|told from|"
    r"stands? beside|take_off|stop_after|classifier_sees|share_generated|draw_together|be_patient)\b|--(rule|cells|at-once)\b"
)
"""Words that no reader searches for; each has a standard term (fix, session, baseline, started, again, instead of, ...)."""
PROSE = [
    *(
        path
        for folder in ("src", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".pyi", ".md", ".yaml", ".j2"}
    ),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
]


def test_the_standard_terms_are_used() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in PROSE
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in PRIVATE_WORDS.finditer(line)
    ]
    assert len(PROSE) > 200
    assert found == []


def test_the_tree_of_the_architecture_page_is_complete() -> None:
    tree = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]
    package = ROOT / "src" / "pixelscope"
    folders = {f"{path.parent.name}/" for path in [*package.glob("*/__init__.py"), *package.glob("[pe]*/*/__init__.py")]}
    files = {path.name for path in package.glob("*.py")} - {"__main__.py"}
    assert sorted(name for name in folders | files if not re.search(rf"(^|\s){re.escape(name)}(\s|$)", tree)) == []


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function's body, its docstring aside."""
    documented = ast.get_docstring(node) is not None and len(node.body) > 1
    first = node.body[1] if documented else node.body[0]
    assert node.end_lineno is not None
    return node.end_lineno - first.lineno + 1


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normal(name): version for name, version in pairs}


def closure(requirements: list[Requirement]) -> set[str]:
    """Return the names of everything installed that the requirements bring, by the metadata of what is installed."""
    found: set[str] = set()
    waiting = [(normal(r.name), frozenset(r.extras)) for r in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        found.add(name)
        waiting += [(normal(r.name), frozenset(r.extras)) for r in required(name, extras)]
    return found


def required(name: str, extras: frozenset[str]) -> list[Requirement]:
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []  # an extra that is not installed here
    all_of_it = map(Requirement, lines)
    return [r for r in all_of_it if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras | {""})]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
