"""`memos eval locomo` on a small conversation of our own in the data set's format."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from memos.cli.main import app
from memos.errors import InvalidInput
from memos.evaluation import locomo
from memos.evaluation.metrics import Scores
from memos.evaluation.report import Asked, Report
from memos.evaluation.systems import PublicPath, WeightedPath
from memos.memory.store import ItemFilter
from memos.retrieval.weights import RecallWeights
from memos.runtime import Runtime, build
from memos.settings import ModelSettings, Settings


def talk() -> dict[str, Any]:
    """Two people, two sessions, a date without a session, a photo, flawed evidence ids."""
    return {
        "sample_id": "talk-1",
        "conversation": {
            "speaker_a": "Ida",
            "speaker_b": "Otto",
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ida", "dia_id": "D1:1", "text": "I repaired the old windmill with my uncle."},
                {"speaker": "Otto", "dia_id": "D1:2", "text": "Great! Which tools did you need?"},
                {"speaker": "Ida", "dia_id": "D1:3", "text": "Mostly a hammer and a long ladder."},
            ],
            "session_10_date_time": "9:00 am on 2 June, 2023",
            "session_10": [
                {
                    "speaker": "Otto",
                    "dia_id": "D10:1",
                    "text": "My pottery class starts tomorrow.",
                    "blip_caption": "a blue vase",
                    "img_url": ["x"],
                },
                {"speaker": "Ida", "dia_id": "D10:2", "text": "Have fun with the clay!"},
            ],
            "session_11_date_time": "9:00 am on 3 June, 2023",
        },
        "qa": [
            {"question": "What did Ida repair?", "answer": "a windmill", "evidence": ["D1:1"], "category": 4},
            {
                "question": "What did they make or mend?",
                "answer": "windmill, pottery",
                "evidence": ["D1:1; D10:01", "D"],
                "category": 1,
            },
            {
                "question": "When does the pottery class start?",
                "answer": "3 June",
                "evidence": ["D:10:1"],
                "category": 2,
            },
            {"question": "Who is missing?", "answer": "", "evidence": ["D7:7"], "category": 3},
            {"question": "Nothing named?", "answer": "", "evidence": [], "category": 3},
            {"question": "A trap?", "adversarial_answer": "x", "evidence": ["D1:1"], "category": 5},
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "talks"
    place.mkdir()
    (place / "talk-1.json").write_text(json.dumps(talk()), encoding="utf-8")
    return place


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    settings = Settings(home=tmp_path / "home", models=ModelSettings(embedder="none"))
    with build(settings, start=False) as built:
        yield built


def test_sessions_come_in_the_order_of_their_numbers() -> None:
    """Session 10 follows session 1, a date without a session is none, captions are part of the text."""
    conversation = locomo.parse(talk())
    assert [[turn.message_id for turn in turns] for turns in conversation.sessions] == [
        ["D1:1", "D1:2", "D1:3"],
        ["D10:1", "D10:2"],
    ]
    photo = conversation.sessions[1][0]
    assert photo.text == "My pottery class starts tomorrow. [shares a blue vase]"
    assert (photo.name, photo.role, photo.session_id) == ("Otto", "assistant", "session_10")
    assert photo.at == "9:00 am on 2 June, 2023"


def test_evidence_is_repaired_and_unusable_questions_are_left_out() -> None:
    """Several ids in a string, stray colons and padded numbers are read; turns that do not exist are not wanted."""
    questions = locomo.parse(talk()).questions
    assert [(question.category, sorted(question.wanted)) for question in questions] == [
        ("single_hop", ["D1:1"]),
        ("multi_hop", ["D10:1", "D1:1"]),
        ("temporal", ["D10:1"]),
    ]


def test_the_whole_evaluation_goes_through_the_public_path(runtime: Runtime, folder: Path) -> None:
    """Turns are stored with speaker, session, place and date; every question is asked and scored."""
    seen: list[tuple[str, int, int]] = []
    report = locomo.evaluate(runtime, folder, on_progress=lambda *step: seen.append(step))
    stored = runtime.store.find(ItemFilter(cube_ids=("talk-1",))).items
    by_turn = {item.sources[0].message_id: item for item in stored}
    assert set(by_turn) == {"D1:1", "D1:2", "D1:3", "D10:1", "D10:2"}
    assert by_turn["D1:3"].participants == ("Ida",)
    assert (by_turn["D1:3"].session_id, by_turn["D1:3"].position) == ("session_1", 2)
    assert by_turn["D1:1"].memory == "I repaired the old windmill with my uncle."
    moment = by_turn["D10:1"].happened_at
    assert moment is not None
    assert moment.astimezone().date().isoformat() == "2023-06-02"
    assert report.overall.n == 3
    assert report.by_category["single_hop"].mrr == 1.0
    assert report.by_category["temporal"].r5 == 1.0
    assert report.by_category["open_domain"].n == 0
    assert seen == [
        ("storing sessions", 1, 2),
        ("storing sessions", 2, 2),
        ("asking", 1, 3),
        ("asking", 2, 3),
        ("asking", 3, 3),
    ]


def test_the_json_has_the_documented_shape(runtime: Runtime, folder: Path) -> None:
    """overall, by_category and latency_ms with exactly the documented keys, shares between 0 and 1."""
    given = json.loads(locomo.evaluate(runtime, folder).to_json())
    assert set(given) == {"overall", "by_category", "latency_ms"}
    metrics = {"r5", "r10", "r20", "mrr", "ndcg10", "n"}
    assert set(given["overall"]) == metrics
    assert set(given["by_category"]) == {"multi_hop", "temporal", "open_domain", "single_hop"}
    for scores in [given["overall"], *given["by_category"].values()]:
        assert set(scores) == metrics
        assert all(0 <= scores[name] <= 1 for name in metrics - {"n"})
    assert set(given["latency_ms"]) == {"p50", "p95"}
    assert given["latency_ms"]["p95"] >= given["latency_ms"]["p50"] > 0


def test_the_table_shows_every_category_and_the_cross_validated_row(runtime: Runtime, folder: Path) -> None:
    """What people read holds the rows that the figures are quoted from."""
    console = Console(width=120, file=io.StringIO())
    with console.capture() as captured:
        console.print(locomo.evaluate(runtime, folder).table())
    shown = captured.get()
    for row in ("multi-hop", "temporal", "open-domain", "single-hop", "cross-validated", "default search"):
        assert row in shown


def asked(category: str, *, r10: float, held_out: float, plain: float) -> Asked:
    def scores(value: float) -> Scores:
        return Scores(r5=value, r10=value, r20=value, mrr=value, ndcg10=value)

    return Asked(
        conversation="talk-1",
        category=category,
        scores=scores(r10),
        cross_validated=scores(held_out),
        defaults=scores(1.0),
        defaults_cross_validated=scores(plain),
        cpu_ms=1.0,
        wall_ms=1.0,
    )


def rows_of(table: Table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_a_bar_holds_for_the_cross_validated_figure() -> None:
    """Each row shows bar, aim and both figures; the mark follows the cross-validated one, by category too."""
    report = Report(
        (
            asked("single_hop", r10=1.0, held_out=1.0, plain=1.0),
            asked("single_hop", r10=1.0, held_out=0.9, plain=0.6),
            asked("multi_hop", r10=1.0, held_out=0.47, plain=0.68),
        ),
        tuple(locomo.CATEGORIES.values()),
    )
    assert rows_of(report.bar_table()) == [
        ["r5", "0.68", "0.72", "0.790", "1.000", "ok+"],
        ["r10", "0.78", "0.82", "0.790", "1.000", "ok"],
        ["r20", "0.84", "0.88", "0.790", "1.000", "short"],
        ["ndcg10", "0.60", "0.64", "0.790", "1.000", "ok+"],
        ["mrr", "0.58", "0.61", "0.790", "1.000", "ok+"],
        ["r10_multi_hop", "0.48", "0.56", "0.470", "1.000", "short"],
        ["r10_defaults", "0.75", "0.80", "0.760", "1.000", "ok"],
    ]
    shown = {row[0]: row for row in rows_of(report.table())}
    assert shown["multi-hop"] == ["multi-hop", "1", "0.470", "0.470", "0.470", "0.470", "0.470"]
    assert shown["single-hop"][:3] == ["single-hop", "2", "0.950"]
    assert shown["temporal"][1] == "0"
    assert shown["overall, default search"] == ["overall, default search", "3", "0.760", "0.760", "", "", ""]


def test_the_command_prints_both_tables_and_writes_the_figures(folder: Path, tmp_path: Path) -> None:
    """A small conversation goes through the command as the data set does: categories, bar, JSON."""
    target = tmp_path / "figures.json"
    result = CliRunner().invoke(
        app,
        ["eval", "locomo", str(folder), "--json", str(target)],
        env={"MEMOS_MODELS__EMBEDDER": "none", "COLUMNS": "120"},
    )
    assert result.exit_code == 0, result.output
    for row in ("multi-hop", "in-sample", "cross-validated", "r10_multi_hop", "r10_defaults", "ok+"):
        assert row in result.stdout
    assert json.loads(target.read_text(encoding="utf-8"))["overall"]["n"] == 3


def test_a_search_by_the_public_path_names_distinct_turns(runtime: Runtime, folder: Path) -> None:
    """Hits are told by the message id that went in, each turn once, with what the search took."""
    system = PublicPath(runtime)
    (conversation,) = locomo.load(folder)
    for turns in conversation.sessions:
        system.add("cube", turns)
    ranking = system.search("cube", "old windmill", top_k=50)
    assert ranking.message_ids[0] == "D1:1"
    assert len(set(ranking.message_ids)) == len(ranking.message_ids)
    assert ranking.wall_ms > 0
    other = WeightedPath(runtime.store, runtime.embedder, RecallWeights().only("lexical"))
    assert other.search("cube", "old windmill", top_k=50).message_ids[0] == "D1:1"


def test_a_conversation_that_no_fold_knows_is_measured_with_the_shipped_weights() -> None:
    """The shipped weights never saw it, so they are its cross-validated ones."""
    assert locomo.fold_weights("talk-1") == RecallWeights()


def test_a_folder_without_conversations_is_refused(tmp_path: Path) -> None:
    """An empty folder, no JSON and JSON of another kind raise InvalidInput naming the place."""
    with pytest.raises(InvalidInput, match="holds no JSON file"):
        locomo.load(tmp_path)
    for text in ("not json", "[]", "{}", '{"conversation": {}, "qa": []}'):
        (tmp_path / "broken.json").write_text(text, encoding="utf-8")
        with pytest.raises(InvalidInput, match=r"broken\.json"):
            locomo.load(tmp_path)
