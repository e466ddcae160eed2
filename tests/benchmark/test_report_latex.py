"""The LaTeX tables: read by a small strict reader, and compiled where TeX is installed."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from benchmark.report.data import report_data
from benchmark.report.layout import table, tables
from benchmark.report.tables import latex, tex
from tests.benchmark import evaluations, made

HOSTILE = "[50 % of a_b] & {c}\\ $x^2$ #1 ~ <b>|\"'`*\n\n\\input{x} \\\\"
STORIES = {f"s{i}": made.story(f"s{i}", (3, 2)) for i in range(6)}
COMMANDS = {
    "begin", "end", "centering", "small", "setlength", "tabcolsep", "caption", "toprule", "midrule",
    "bottomrule", "multicolumn", "cmidrule", "textbf", "underline", "itshape", "tiny", "scriptsize",
    "uparrow", "downarrow", "textbackslash", "textasciitilde", "textasciicircum",
    "textless", "textgreater", "textbar",
}  # fmt: skip
EVERY = {
    "plain": (STORIES, {"near": {"spread": 0.3}, "far": {"spread": 0.9}}, {}),
    "hostile": (STORIES, {HOSTILE: {}, "*": {"spread": 0.9}, "[2pt]": {"spread": 0.5}}, {}),
    "no weights": (STORIES, {"a": {}, "b": {"spread": 0.9}}, {"weights": False}),
    "one story": ({"s0": STORIES["s0"]}, {"a": {}, "b": {}}, {}),
    "ours": (STORIES, {"a": {}}, {"name": "ours"}),
    "storymem": (STORIES, {"a": {}}, {"name": "storymem"}),
}


@pytest.fixture(scope="module", params=EVERY)
def data(request):
    stories, methods, of = EVERY[request.param]
    return report_data(evaluations.evaluation(stories, methods, **of), pictures=False)


def strip_escapes(text):
    """The text without escaped characters, so that every special one that is left acts."""
    return re.sub(r"\\[&%$#_{}]", "", text)


def cells(row):
    """Columns that a row of a table fills."""
    parts = strip_escapes(row).split("&")
    wide = [re.match(r"\s*\\multicolumn\{(\d+)\}", part) for part in parts]
    return sum(int(found[1]) if found else 1 for found in wide)


def test_every_row_fills_every_column_and_all_that_is_opened_is_closed(data):
    text = latex(data)
    assert text.isascii()
    bodies = re.findall(r"\\begin\{tabular\}\{(l r*)\}\n(.*?)\\end\{tabular\}".replace(" ", ""), text, re.S)
    assert [len(spec) - 1 for spec, _ in bodies] == [len(one.columns) for one in tables(data)]
    for spec, body in bodies:
        rows = 0
        for line in body.splitlines():
            line = re.sub(r"^\\(toprule|midrule|bottomrule)\s*", "", line)
            if not line or line.startswith(r"\cmidrule"):
                spans = [tuple(map(int, s)) for s in re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", line)]
                assert all(1 < low < high <= len(spec) for low, high in spans)
                continue
            assert line.endswith(r" \\")
            assert not re.match(r"\s*[\[*]", line)  # it would be an argument of the row's end before it
            assert cells(line) == len(spec), line
            rows += 1
        assert rows > 3
    open_environments = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if what == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert open_environments == []


def test_nothing_acts_that_was_not_meant_to(data):
    text = re.sub(r"^%.*$", "", latex(data), flags=re.M)
    assert set(re.findall(r"\\([a-zA-Z]+)", text.replace("\\\\", ""))) <= COMMANDS
    depth, bare = 0, strip_escapes(text)
    for character in bare:
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0
    assert not set(bare) & set("#~^_%<>|")
    assert set(re.findall(r"\$[^$]*\$", bare)) <= {r"$\uparrow$", r"$\downarrow$"}


def test_the_best_is_marked_and_units_and_sources_are_there():
    stories, methods, _ = EVERY["plain"]
    plain = report_data(evaluations.evaluation(stories, methods), pictures=False)
    text = latex(plain)
    assert re.search(r"^near & .*\\textbf\{", text, re.M)
    assert r"\cmidrule(lr){3-4}" in text
    assert "reported by Memento, not measured here" in text
    assert r"$\downarrow$ {\scriptsize /255}" in text
    assert len(table(plain).columns) == 7
    assert tex("50 % of a_b & {c}\\") == r"50 \% of a\_b \& \{c\}\textbackslash{}"


def test_tex_takes_it(data, tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex on this machine")
    (tmp_path / "table.tex").write_text(latex(data))
    (tmp_path / "page.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\usepackage[landscape,margin=1cm]{geometry}\n"
        "\\begin{document}\\input{table.tex}\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-1500:]
    assert (tmp_path / "page.pdf").stat().st_size > 10_000
