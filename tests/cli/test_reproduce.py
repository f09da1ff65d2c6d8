"""`bcl reproduce` shows what a stranger's record says as text."""

from bclightning.cli import reproduce
from bclightning.runs.record import RunRecord
from bclightning.runs.reproduce import Difference, Reproduction


def test_names_from_a_record_are_text_in_table_and_sentences(monkeypatch, capsys, folder):
    metric = "[/red]\x1b[2J"
    record = RunRecord("r", "e", "none", "digits", seed=0, monitor=metric, test_metric=metric)
    tested = Difference(0, f"{metric} (real, as trained)", 1.0, 2.0, is_score=True)
    result = Reproduction(
        record, [{"epoch": 0, metric: 1.0}], [tested], [], [f"{metric} is 1 and 2"], 1, 1
    )
    monkeypatch.setattr(reproduce, "reproduce", lambda *_, **__: result)
    monkeypatch.setattr(reproduce.RunConfig, "from_parsed", lambda *_: None)
    monkeypatch.setenv("COLUMNS", "200")
    assert reproduce.run(reproduce.Namespace(epochs=1)) == 1
    said = capsys.readouterr().out
    assert said.count("[/red]\\x1b[2J") == 3
    assert "\x1b" not in said
