"""The report page: complete, safe with any text, self-contained, small, the same every time."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from warmstart.core.report import (
    ClassScore,
    Comparison,
    CurvePoint,
    DataSummary,
    ErrorCase,
    Metric,
    Neighbour,
    ReliabilityBin,
    Report,
    Rung,
)
from warmstart.engine import gallery, page, plots

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
NASTY = "<script>alert('x')</script> & \"quoted\" $a_b$ {{ 7 * 7 }} <!-- --> </style> 漢字 \x00\x1b"
SIX = ("card arrival", "cash withdrawal", "exchange rate", "lost or stolen card", "refund", "top up")
RUNGS = (
    Rung("majority", 0.181, 0.166, 0.197, 0.0, 0.01, 0, examples=2400),
    Rung("classic", 0.842, 0.826, 0.857, 3.1, 2.4, 48_210, examples=2400),
    Rung("linear_probe", 0.898, 0.885, 0.91, 11.0, 12.9, 16_134, examples=2400, note="all layers, C = 3"),
    Rung("tail", 0.929, 0.918, 0.939, 58.0, 61.7, 3_554_310, chosen=True, examples=2400, note="last 2 of 6 blocks"),
    Rung("lora", 0.931, 0.92, 0.941, 140.0, 131.2, 297_222, examples=2400),
    Rung("full", note="does not fit into the budget: 412 s predicted, 71 s left"),
)


def report_of(labels: tuple[str, ...], rows: int, *, seed: int = 0) -> Report:
    """A realistic ``adapt`` report over ``labels``, with every section filled."""
    rng = np.random.default_rng(seed)
    size = len(labels)
    counts = np.zeros((size, size), dtype=int)
    for truth in range(size):
        near = 0.06 * np.exp(-np.abs(np.arange(size) - truth) / 1.5) + 0.0006
        near[truth] = 1.2 if size > 2 else 0.4
        counts[truth] = rng.multinomial(max(rows // size, 3), near / near.sum())
    shuffled = rng.permutation(size)
    counts = counts[np.ix_(shuffled, shuffled)]
    n = int(counts.sum())
    near_by = tuple(
        Neighbour(f"Where is my {word}?", labels[i], 0.9 - 0.07 * i) for i, word in ((-1, "top up"), (0, "card"), (1, "refund"))
    )
    return Report(
        verb="adapt",
        model="banking-model",
        task="single-label classification",
        backbone="minilm",
        strategy="tail",
        main_metric="accuracy",
        measured_on="test rows",
        metrics={
            "accuracy": Metric(0.927, 0.914, 0.938, n),
            "macro_f1": Metric(0.919, 0.905, 0.932, n),
            "log_loss": Metric(0.2471, 0.2194, 0.2767, n),
            "brier": Metric(0.1093, 0.0961, 0.1229, n),
            "ece": Metric(0.0148, 0.0089, 0.0231, n),
        },
        data=DataSummary(
            source="data/banking/train.csv",
            columns={"text": "query", "label": "intent"},
            rows_train=4 * n,
            rows_test=n,
            labels={label: int(9 * n / (size + 2 * i)) for i, label in enumerate(labels)},
            split="20 % held out for testing, stratified, seed 0",
            lengths=[(4 * i, 4 * i + 4, int(4000 * i * np.exp(-i / 2.2))) for i in range(24)],
            tokens_mean=14.2,
            truncated=3,
            duplicates=17,
            conflicts=2,
            leaked=1,
            left_out={"empty text": 4, "missing label": 1},
        ),
        seconds=251.3,
        budget_seconds=300.0,
        peak_bytes=1_430_000_000,
        ladder=list(RUNGS),
        comparisons=[
            Comparison(
                "tail", "classic", 0.087, 0.069, 0.105, 2400, "tail beats classic by +8.7 points [6.9, 10.5]: pre-training helps here."
            ),
            Comparison("tail", "linear_probe", 0.031, 0.018, 0.044, 2400, "tail beats linear_probe by +3.1 points [1.8, 4.4]."),
            Comparison("lora", "tail", 0.002, -0.006, 0.01, 2400, "lora and tail cannot be told apart: +0.2 points [-0.6, 1.0]."),
        ],
        verdict=[
            "Pre-training helps: 92.7 % right on rows it never saw, 8.7 points more than a model without it.",
            "Training the last two blocks was enough: LoRA was no better and costs twice the time.",
            "The cheapest rung within one standard error of the best is tail.",
        ],
        learning_curve=[
            CurvePoint(m, 0.93 - 1.4 / m**0.5, 0.92 - 1.8 / m**0.5, 0.94 - 1.1 / m**0.5) for m in (48, 96, 192, 480, 960, 2400, 9600)
        ],
        learning_curve_sentence="Doubling the labels would bring about half a point: more labels hardly help now.",
        confusion_labels=list(labels),
        confusion=counts.tolist(),
        reliability=[
            ReliabilityBin(c, c + d, m)
            for c, d, m in (
                (0.44, 0.09, 21),
                (0.55, -0.04, 60),
                (0.66, 0.03, 88),
                (0.77, -0.05, 120),
                (0.86, -0.01, 260),
                (0.97, -0.008, 1851),
            )
        ],
        errors=[
            ErrorCase(
                f"I topped up {i + 2} hours ago and the money still is not there.",
                labels[-1],
                labels[0],
                0.993 - 0.01 * i,
                1203 + i,
                near_by,
            )
            for i in range(8)
        ],
        environment={
            "warmstart": "0.1.0",
            "python": "3.11.2",
            "torch": "2.13.0+cpu",
            "transformers": "5.23.0",
            "processor": "Xeon, 2 cores, AVX-512",
            "device": "cpu, bfloat16",
        },
        command="warmstart adapt data/banking/train.csv --column text=query --column label=intent --budget 5m --seed 0 --out banking-model",
        seed=0,
        warnings=[
            "2 texts occur with different labels (rows 118 and 902, rows 77 and 1401): the model cannot learn both.",
            "1 test row also occurs in the training rows; it was left out of the test.",
        ],
    )


def extreme_report() -> Report:
    """More than any run would write, with hostile text wherever text can stand."""
    labels = tuple(f"{i} {NASTY}" for i in range(150))
    base = report_of(labels, 6000)
    long = NASTY + '长文本 &<>" ' * 1500
    case = ErrorCase(long, long, long, 1.0, 10**9, tuple(Neighbour(long, long, 1.0) for _ in range(20)))
    return dataclasses.replace(
        base,
        model=long,
        backbone=long,
        strategy=NASTY,
        task=long,
        measured_on=long,
        data=dataclasses.replace(
            base.data,
            source=long,
            columns={f"{i}{NASTY}": long for i in range(50)},
            split=long,
            left_out={f"{i} {long}": i for i in range(500)},
            lengths=[(i, i + 1, i) for i in range(5000)],
        ),
        ladder=[dataclasses.replace(r, strategy=NASTY, note=long) for r in RUNGS] * 20,
        comparisons=[dataclasses.replace(c, a=NASTY, b=NASTY, sentence=long) for c in base.comparisons] * 20,
        verdict=[long] * 40,
        learning_curve_sentence=long,
        errors=[case] * 200,
        environment={f"{i} {NASTY}": long for i in range(300)},
        command=long,
        warnings=[long] * 100,
    )


def bare(report: Report) -> Report:
    """What ``evaluate`` may know at least: no ladder, no curve, nothing optional."""
    required = ("model", "task", "backbone", "strategy", "main_metric", "measured_on", "metrics")
    data = dataclasses.replace(report.data, lengths=[], left_out={}, labels={}, rows_train=0)
    return Report(verb="evaluate", data=data, **{name: getattr(report, name) for name in required})


class Checker(HTMLParser):
    """Collects what the tests ask about, and complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def full() -> str:
    return page.render(report_of(SIX, 2400))


@pytest.fixture(scope="module")
def extreme() -> str:
    return page.render(extreme_report())


def test_every_metric_rung_warning_and_sentence_appears(full: str) -> None:
    report = report_of(SIX, 2400)
    text = Checker(full).text
    numbers = ["92.7 %", "91.4–93.8 %", "0.247", "0.219–0.277", "Brier score", "macro F1", "calibration error", "n = 2,400 test rows"]
    rungs = [text for rung in report.ladder for text in (rung.strategy, rung.note)]
    sentences = [*report.verdict, *(c.sentence for c in report.comparisons), report.learning_curve_sentence, *report.warnings]
    for shown in (*numbers, *rungs, *sentences, report.command, *report.environment.values()):
        assert shown in text
    in_order = (report.verdict[0], "How good it is", "The ladder", "Is the difference real?", "The data", "Run it again")
    places = [text.index(heading) for heading in in_order]
    assert places == sorted(places)


def test_numbers_of_the_data_and_the_budget_appear(full: str) -> None:
    text = Checker(full).text
    for shown in (
        "9,600",
        "empty text 4",
        "same text, different labels 2",
        "test rows also in training 1",
        "4 min 11 s (83.8 % of the budget)",
        "row 1,203",
    ):
        assert shown in text


def test_six_drawings_are_labelled_and_follow_the_theme(full: str) -> None:
    checker = Checker(full)
    assert checker.tags.count("svg") == 6
    labels = [value for name, value in checker.attributes if name == "aria-label"]
    for word in ("Learning curve", "Confusion matrix of 6 classes", "Reliability diagram", "Paired differences", "Histogram", "every rung"):
        assert any(word in label for label in labels)
    assert "prefers-color-scheme: dark" in full
    assert "var(--ink)" in full
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]", full), "a place-holder colour was left"


@pytest.mark.parametrize("labels", [tuple(f"class_{i}" for i in range(25)), tuple(f"class_{i}" for i in range(77))])
def test_html_is_balanced_and_ids_are_unique(labels: tuple[str, ...]) -> None:
    checker = Checker(page.render(report_of(labels, 600)))
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert checker.tags.count("h1") == 1


def test_the_extreme_page_is_small_whole_and_safe(extreme: str) -> None:
    assert len(extreme.encode()) < 2_000_000
    checker = Checker(extreme)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert "script" not in checker.tags
    assert checker.tags.count("style") == 1
    assert "alert('x')" in checker.text
    assert "{{ 7 * 7 }}" in checker.text
    assert not re.search("[\x00-\x08\x1b]", extreme)


def test_markup_in_texts_labels_columns_and_the_command_stays_text() -> None:
    report = report_of((NASTY, "plain", "other"), 90)
    data = dataclasses.replace(report.data, columns={"text": NASTY}, labels={NASTY: 3, "plain": 2})
    hostile = dataclasses.replace(
        report, data=data, command=f"warmstart adapt '{NASTY}'", errors=[dataclasses.replace(report.errors[0], text=NASTY)]
    )
    checker = Checker(page.render(hostile))
    assert "script" not in checker.tags
    assert checker.open == []
    assert checker.text.count("<script>alert('x')") >= 6


def test_nothing_is_loaded_from_anywhere(full: str, extreme: str) -> None:
    for text in (full, extreme):
        assert set(re.findall(r"https?://[^\s\"'<>)]*", text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
        sources = [value for name, value in Checker(text).attributes if name in ("src", "href", "xlink:href", "action", "srcset")]
        assert all(value.startswith(("#", "data:")) for value in sources)
        assert "@import" not in text
        assert not re.search(r"url\((?!#)", text)


def test_the_same_report_gives_the_same_page(full: str) -> None:
    assert page.render(report_of(SIX, 2400)) == full


def test_sections_without_data_are_left_out(full: str) -> None:
    checker = Checker(page.render(bare(report_of(SIX, 2400))))
    optional = {"ladder", "differences", "labels", "confusion", "calibration", "errors", "warnings"}
    assert optional <= set(Checker(full).ids)
    assert optional.isdisjoint(checker.ids)
    assert {"quality", "data", "run"} <= set(checker.ids)
    assert {value[1:] for name, value in checker.attributes if name == "href" and value.startswith("#")} <= set(checker.ids)
    assert "svg" not in checker.tags
    assert "training rows 0" not in checker.text
    assert "banking-model evaluated on train.csv" in checker.text
    assert "budget" not in checker.text
    assert "92.7 %" in checker.text


def test_axes_of_calibration_end_at_100_percent() -> None:
    drawn = plots.reliability([ReliabilityBin(c, a, 10) for c, a in ((0.97, 0.94), (0.99, 0.99), (1.0, 1.0))])
    ticks = [float(found) for found in re.findall(r">([\d.]+) %<", drawn)]
    assert max(ticks) == 100.0
    assert ticks.count(100.0) == 2


def test_numbers_that_do_not_exist_are_dashes() -> None:
    nan = float("nan")
    report = report_of(("a", "b"), 12)
    odd = dataclasses.replace(
        report,
        metrics={"accuracy": Metric(1.0, nan, nan, 1), "perplexity": Metric(float("inf"), nan, nan, 1)},
        ladder=[Rung("majority", nan), Rung("classic", 0.5), Rung("tail", 0.5, 0.5, 0.5, 0.0, 0.0, chosen=True)],
        comparisons=[Comparison("tail", "classic", 0.0, nan, nan, 0, "equal")],
        learning_curve=[CurvePoint(8, 0.5, nan, nan), CurvePoint(0, nan, nan, nan)],
        reliability=[ReliabilityBin(nan, nan, 0), ReliabilityBin(1.0, 1.0, 1)],
        confusion=[[0, 0], [0, 0]],
        seconds=0.0,
        budget_seconds=0.0,
    )
    checker = Checker(page.render(odd))
    assert checker.open == []
    assert "nan" not in checker.text.split()
    assert "–" in checker.text


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (page.duration(0.042), "0.042 s"),
        (page.duration(8.26), "8.3 s"),
        (page.duration(99.7), "1 min 40 s"),
        (page.duration(3600 * 2 + 310), "2 h 05 min"),
        (page.duration(None), "–"),
        (page.compact(48_210), "48,210"),
        (page.compact(22_713_216), "22.7 M"),
        (page.size(1_430_000_000), "1.3 GiB"),
        (page.points(-0.0531), "−5.3"),
        (page.points(-0.0001), "0.0"),
        (page.score(0.9124, "accuracy"), "91.2 %"),
        (page.score(0.9124, "log_loss"), "0.912"),
        (page.clip("a  b\n\x00c", 10), "a b c"),
        (page.clip("x" * 50, 5), "xxxx…"),
    ],
)
def test_numbers_read_well(shown: str, expected: str) -> None:
    assert shown.replace("\u00a0", " ") == expected


def test_rungs_on_other_rows_are_set_side_by_side_on_the_same() -> None:
    expected = [Metric(0.915, 0.89, 0.93, 576), Metric(0.955, 0.92, 0.98, 576)]
    rungs = [
        Rung("linear_probe", 0.915, 0.89, 0.93, 1.0, 1.0, 10, examples=576, rows=576, expected=expected[0]),
        Rung("tail", 0.902, 0.86, 0.93, 2.0, 2.0, 20, chosen=True, examples=144, rows=144, expected=expected[1]),
    ]
    report = dataclasses.replace(report_of(SIX, 600), ladder=[*rungs, RUNGS[-1]])
    text = Checker(page.render(report)).text
    assert "expected on 576 rows" in text.replace("\u00a0", " ")
    assert "linear_probe 91.5 % 89.0–93.0 % 576 91.5 % −4.0" in text.replace("\u00a0", " ")
    lines = report.as_text().splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("  rung")) :]
    assert table[0].split()[:9] == ["rung", "score", "95", "%", "interval", "rows", "on", "576,", "about"]
    assert table[1].split()[4:6] == ["576", "0.915"]
    assert "compare them by what is to be expected on 576" in table[4]
    printed = report.contract()["ladder"]
    assert [rung["rows"] for rung in printed] == [576, 144, 0]
    assert printed[1]["expected"] == {"value": 0.955, "low": 0.92, "high": 0.98, "n": 576}
    same = dataclasses.replace(report, ladder=[dataclasses.replace(r, expected=None) for r in rungs])
    assert "expected on" not in Checker(page.render(same)).text
    assert "compare them" not in same.as_text()


def of_classes(size: int) -> Report:
    """A report with scores and curves of so many classes."""
    report = report_of(tuple(f"class {i:03}" for i in range(size)), 10 * size)
    share = Metric(0.5, 0.2, 0.8, 10)
    classes = [ClassScore(f"class {i:03}", i + 1, Metric(i / size, 0.0, 1.0, 9), share if i else None, share) for i in range(size)]
    curves = {c.label: np.linspace(1, c.f1.value, 101).tolist() for c in classes[:12]}
    return dataclasses.replace(report, classes=classes[::-1], curves=curves)


def test_classes_are_listed_from_the_lowest_with_their_rows_and_curves() -> None:
    checker = Checker(page.render(of_classes(5)))
    text = checker.text.replace("\u00a0", " ")
    assert "classes" in checker.ids
    assert "class 000 0.0 % 0.0–100.0 % – 50.0 % 1 class 001 20.0 %" in text
    assert checker.open == []
    assert sum(value.startswith("Precision against recall of ") for name, value in checker.attributes if name == "aria-label") == 5
    assert "class 000 area 0.50" in text


def test_of_many_classes_the_lowest_are_listed() -> None:
    rendered = page.render(of_classes(1000))
    text = Checker(rendered).text
    assert "The 30 lowest of 1,000 classes" in text
    assert "The 12 of 1,000 classes that are known worst" in text
    assert len(rendered.encode()) < 2_000_000


def test_pictures_make_a_montage_and_sounds_can_be_played() -> None:
    pixel = "data:image/png;base64,iVBORw0KGgo="
    report = report_of(SIX, 600)
    near = tuple(dataclasses.replace(n, picture=pixel, text=NASTY) for n in report.errors[0].neighbours)
    seen = dataclasses.replace(report, errors=[dataclasses.replace(e, picture=pixel, neighbours=near, text=NASTY) for e in report.errors])
    checker = Checker(page.render(seen))
    assert ("class", "errors montage") in checker.attributes
    assert checker.attributes.count(("src", pixel)) == 8 * 4
    assert "script" not in checker.tags
    assert checker.open == []
    tone = "data:audio/mpeg;base64,SUQzBAA="
    near = tuple(dataclasses.replace(n, sound=tone) for n in near)
    errors = [dataclasses.replace(e, sound=tone, decision="without <b>", neighbours=near) for e in seen.errors]
    checker = Checker(page.render(dataclasses.replace(seen, errors=errors)))
    assert ("class", "errors heard") in checker.attributes
    assert checker.tags.count("audio") == 8 * 4
    assert "without <b>" in checker.text
    assert checker.open == []


def test_the_page_stays_small_with_as_many_large_pictures_and_sounds_as_there_may_be() -> None:
    extreme = extreme_report()
    picture = "data:image/jpeg;base64," + "A" * (gallery.MOST_PICTURE - 100)
    tone = "data:audio/mpeg;base64," + "A" * (gallery.MOST_SOUND - 100)
    near = tuple(dataclasses.replace(n, picture=picture, sound=tone) for n in extreme.errors[0].neighbours)
    case = dataclasses.replace(extreme.errors[0], picture=picture, sound=tone, neighbours=near, decision=NASTY * 50)
    classes = of_classes(300)
    full = dataclasses.replace(extreme, errors=[case] * 200, classes=classes.classes, curves=classes.curves)
    rendered = page.render(full)
    assert len(rendered.encode()) < 2_000_000
    assert rendered.count(picture) >= 25, "every error that is shown is seen"
    assert rendered.count("<audio") >= 5


def test_write_replaces_the_file_whole(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    report = bare(report_of(SIX, 2400))
    page.write(report, target)
    assert target.read_text(encoding="utf-8") == page.render(report)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_curves_are_broken_between_phases() -> None:
    steps, values = [1, 2, 3, 4, 5], [9.0, 8.0, 1.0, 0.5, 0.4]
    broken = plots._broken(steps, values, [2])
    assert [step for step in broken[0] if step == step] == steps
    assert [i for i, value in enumerate(broken[1]) if value != value] == [2]
    drawn = plots.curves([("training", steps, values)], "loss", phases=[("layer 1", 2), ("fine-tuning", 5)])
    assert "fine-tuning" in drawn
    assert "layer 1" not in drawn
    assert plots._broken(steps, values, []) == ([1.0, 2.0, 3.0, 4.0, 5.0], values)


def test_a_range_of_negative_numbers_has_no_dash() -> None:
    assert page.interval(Metric(-178.0, -181.8, -176.9, 10), "log_loss") == "-181.800 to -176.900"
    assert page.interval(Metric(0.5, 0.4, 0.6, 10), "log_loss") == "0.400–0.600"
