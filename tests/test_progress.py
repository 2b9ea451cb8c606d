"""Bars are shown where they help, and nowhere else."""

import pytest
from tqdm.std import TqdmDefaultWriteLock

from partcrop_lab.progress import bar, no_bars


def test_a_bar_is_shown_unless_it_or_all_are_hidden(capsys):
    def drawn(**how):
        list(bar(range(3), "counting", **how))
        return "counting" in capsys.readouterr().err

    assert drawn() and not drawn(shown=False)
    with no_bars():
        assert not drawn() and not drawn(shown=True)
    assert drawn()


def test_bars_come_back_after_an_error_within():
    with pytest.raises(KeyError), no_bars():
        raise KeyError
    assert not bar(range(1)).disable


@pytest.mark.parametrize(("option", "shown"), [("--quiet", False), (None, True)])
def test_quiet_hides_the_bars_of_loading_too(option, shown, shell, tiny, monkeypatch):
    monkeypatch.setattr("partcrop_lab.images.partshapes.bar", lambda over, desc, delay: bar(over, desc))
    sets = ("--images", "partshapes", "--members", 30, "--crops", 2, "--attacker", "logistic", "--permutations", 0)
    status, _, errors = shell("audit", *tiny, *sets, *filter(None, [option]))
    assert status == 0 and any("partshapes" in line for line in errors) == shown


def test_a_bar_takes_no_semaphore_which_a_process_that_is_killed_would_leak():
    assert not isinstance(bar(range(1)).get_lock(), TqdmDefaultWriteLock)
