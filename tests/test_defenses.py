"""Every defence: what it changes, that any attack runs on it, and what an attacker who knows it does."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from small_recipes import TINY_VIT, settings

import partcrop_lab as pl
from partcrop_lab import plots
from partcrop_lab.attacks import EncoderMI, Norms, PartCosine, PartCrop, Reconstruction, Unified
from partcrop_lab.audit import compare
from partcrop_lab.defenses import (
    DEFENSES,
    DPSGD,
    SCSR,
    Averaged,
    Capacity,
    EarlierLayer,
    EarlyStop,
    OutputNoise,
    QueryLimit,
    Rounding,
    Served,
    StrongAugmentation,
    TopK,
    WeightDecay,
    defended,
    make_defense,
    over_trainings,
    paper_tables,
    save_tradeoff,
    tradeoff,
    with_front,
)
from partcrop_lab.defenses.base import defense_from
from partcrop_lab.encoders.utility import linear_probe

ATTACK = PartCosine(crops=4)
SMALLER = {"capacity": Capacity(width=24, depth=1, heads=2), "earlier-layer": EarlierLayer(1)}


@pytest.fixture(scope="module")
def split():
    return pl.member_split(pl.load_images("partshapes", n=100, size=32, seed=4), members=40, seed=0)


@pytest.fixture(scope="module")
def encoder(split):
    return pl.pretrain("simclr", split, 2, progress=False, precision="fp32", **TINY_VIT, batch_size=20)


@pytest.fixture
def pixels(split):
    return split.members.batch(slice(0, 6))


@pytest.mark.parametrize("name", sorted(DEFENSES))
def test_any_attack_runs_on_every_defence_and_on_its_adaptive_attacker(name, encoder, split):
    defense = SMALLER.get(name) or make_defense(name)
    guarded = defended(encoder, defense, progress=False)
    asked, attack = defense.adaptive(guarded, ATTACK)
    for using, one in ((guarded, defense.hindered(ATTACK)), (asked, attack)):
        result = pl.audit(using, split, one, permutations=1, progress=False)
        assert np.isfinite(result.scores.score).all() and 0 <= result.controls.p_value.untrained <= 1
    if defense.stage == "serving":
        assert guarded.split_digest == encoder.split_digest
    assert (guarded.digest == encoder.digest) == (name == "query-limit")


@pytest.mark.parametrize("name", sorted(DEFENSES))
def test_a_defence_is_made_again_from_what_it_says_of_itself(name):
    defense = make_defense(name)
    assert defense_from(defense.settings) == defense and defense.label == name
    assert defense.stage in ("training", "serving")


def test_labels_name_what_is_not_a_default():
    assert SCSR((0.2, 0.4)).label == "scsr scale=(0.2, 0.4)" and OutputNoise(0.5, 3).label == "noise sigma=0.5 seed=3"


def test_noise_is_as_large_as_said_and_the_same_for_the_same_image(encoder, pixels):
    plain, served = encoder.vectors(pixels), OutputNoise(2.0).wrap(encoder).vectors(pixels)
    size = plain.square().mean(1, keepdim=True).sqrt()
    assert abs(float(((served - plain) / size).std()) - 2) < 0.2
    again = OutputNoise(2.0).wrap(encoder)
    assert again.singly().inner.micro_batch(16) == 1
    torch.testing.assert_close(again.vectors(pixels[3:]), served[3:])
    torch.testing.assert_close(again.vectors(pixels.float() / 255), served)
    assert not torch.allclose(OutputNoise(2.0, seed=1).wrap(encoder).vectors(pixels), served)
    assert torch.equal(OutputNoise(0.0).wrap(encoder).vectors(pixels), plain)


def test_maps_and_cls_are_served_with_noise_too(encoder, pixels):
    served = OutputNoise(1.0).wrap(encoder)
    fmap, cls = served.tokens(pixels)
    plain_map, plain_cls = encoder.tokens(pixels)
    assert (fmap - plain_map).flatten(1).std(1).min() > 0 and (cls - plain_cls).std(1).min() > 0


def test_averaging_takes_noise_away_by_the_root_of_its_times(encoder, pixels):
    served = OutputNoise(1.0).wrap(encoder)
    plain = encoder.vectors(pixels)
    error = lambda using: float((using.vectors(pixels) - plain).square().mean().sqrt())  # noqa: E731
    assert error(Averaged(served, 16)) < 0.4 * error(served)
    asked, attack = OutputNoise(1.0).adaptive(served, ATTACK)
    assert isinstance(asked, Averaged) and attack is ATTACK
    assert isinstance(asked.untrained(1), Averaged) and isinstance(asked.untrained(1).inner, Served)


def test_rounded_answers_are_multiples_of_their_step(encoder, pixels):
    plain, served = encoder.vectors(pixels), Rounding(0.5).wrap(encoder).vectors(pixels)
    step = 0.5 * 2 ** plain.square().mean(1, keepdim=True).sqrt().log2().round()
    np.testing.assert_allclose(served / step, (served / step).round(), atol=1e-5)
    assert ((served - plain).abs() <= step / 2 + 1e-6).all() and not torch.equal(served, plain)


def test_only_the_largest_numbers_are_served(encoder, pixels):
    plain, served = encoder.vectors(pixels), TopK(0.25).wrap(encoder).vectors(pixels)
    assert ((served != 0).sum(1) == 12).all() and torch.equal(served[served != 0], plain[served != 0])
    assert (plain.abs()[served == 0].view(6, -1).amax(1) <= served.abs().where(served != 0, 9e9).amin(1)).all()


@pytest.mark.numeric
def test_an_earlier_layer_is_the_encoder_without_its_last_blocks(encoder, pixels):
    served = EarlierLayer(1).wrap(encoder)
    prepared = (pixels.float() / 255 - 0.5) / 0.25
    model = encoder._model
    tokens = model.blocks[0](model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(prepared)))))
    torch.testing.assert_close(served.vectors(pixels, "cls"), model.norm(tokens)[:, 0], rtol=1e-4, atol=1e-4)
    assert torch.equal(EarlierLayer(2).wrap(encoder).vectors(pixels), encoder.vectors(pixels))
    with pytest.raises(pl.BadInput, match="has 2 blocks; blocks= must be at most so many"):
        EarlierLayer(3).wrap(encoder)
    with pytest.raises(pl.BadInput, match="has no blocks to leave out"):
        EarlierLayer(1).wrap(pl.load_encoder("random:resnet18", image_size=32))


def test_a_limit_of_queries_hinders_attacks_that_ask_more():
    limit = QueryLimit(5)
    hindered = [limit.hindered(one) for one in (PartCrop(), PartCosine(), EncoderMI(), Unified(), Norms())]
    assert [one.queries for one in hindered] == [5, 5, 5, 5, 1]
    with pytest.raises(ValueError, match="attack norms always asks 1 times an image"):
        Norms().asking(5)


def test_a_service_gives_neither_its_decoder_nor_its_weights(split, tmp_path):
    masked = pl.pretrain("mae", split, 1, decoder=True, **settings("mae"))
    served = Rounding().wrap(masked)
    with pytest.raises(pl.BadInput, match="serves features alone"):
        Reconstruction().features(served, split.members)
    with pytest.raises(pl.BadInput, match="is a service around another"):
        served.save(tmp_path / "served.safetensors")


def test_training_defences_change_what_they_say_and_the_card_shows_it(split):
    def card(defense, recipe="simclr"):
        return defense.fit(recipe, split, 4, **settings(recipe) | {"batch_size": 20}).card

    assert (card(EarlyStop(0.5))["T"], card(EarlyStop(0.5))["planned"]) == (2, 4)
    assert card(SCSR((0.3, 0.5)))["settings"]["crop_scale"] == (0.3, 0.5)
    assert card(WeightDecay(0.7))["settings"]["weight_decay"] == 0.7
    assert card(SMALLER["capacity"])["settings"]["model_options"]["embed_dim"] == 24
    strong = card(StrongAugmentation())["settings"]
    assert (strong["brightness"], strong["saturation"], strong["blur"]) == (0.8, 0.4, 0.5)
    private = card(DPSGD(8.0), "mae")["privacy"]
    assert 7.5 < private["epsilon"] <= 8 and (private["clip"], private["steps"]) == (1.2, 8)
    assert card(DPSGD(8.0))["privacy"]["guarantee"].startswith("no formal guarantee")


def test_an_attacker_who_knows_scsr_cuts_parts_as_the_training_did(encoder):
    assert SCSR((0.2, 0.4)).adaptive(encoder, PartCrop())[1].scale == (0.2, 0.4)
    assert SCSR((0.2, 0.4)).adaptive(encoder, EncoderMI())[1] == EncoderMI()


def test_training_again_needs_a_card_and_gives_the_same_run(encoder, split):
    same = defended(encoder, EarlyStop(1.0), progress=False)
    assert same.digest == encoder.digest
    with pytest.raises(pl.BadInput, match="does not say how it was trained"):
        defended(encoder.untrained(0), WeightDecay())


@pytest.fixture(scope="module")
def table(encoder):
    labelled = pl.load_images("partshapes", n=80, size=32, seed=9)
    defenses = [OutputNoise(5.0), QueryLimit(3), EarlyStop(0.5), SCSR((0.3, 0.6))]
    return tradeoff(encoder, defenses, ATTACK, labelled, seeds=2, progress=False)


def test_the_tradeoff_has_a_row_for_each_defence_and_each_attacker(table, encoder):
    noise, scsr = "noise sigma=5.0", "scsr scale=(0.3, 0.6)"
    assert table.level.tolist() == ["none", noise, noise, "query-limit", "early-stop", scsr, scsr]
    plain, known = "as before", "adaptive"
    assert table.attacker.tolist() == [plain, plain, known, plain, plain, plain, known]
    assert table.queries.tolist() == [5, 5, 40, 3, 5, 5, 5] and set(table.seeds) == {2}
    assert (table.low <= table.auc).all() and (table.auc <= table.high).all()
    assert table.probe[0] == linear_probe(encoder, *halves()) and table.probe[3] == table.probe[0]
    assert table.probe[1] < table.probe[0] and table.knn[1] != table.knn[0]


def test_what_the_adaptive_attack_gains_on_any_encoder_stands_beside_what_it_finds(table, encoder):
    known = compare([encoder], [replace(ATTACK, scale=(0.3, 0.6))], encoder.split, 2, progress=False).table.iloc[0]
    assert table.bare.notna().tolist() == [False] * 6 + [True]
    assert table.loc[6, ["bare", "bare_low", "bare_high"]].tolist() == known[["auc", "low", "high"]].tolist()
    cell = paper_tables(over_trainings(table))["scsr"].iloc[1, 0]
    assert f"\nundefended {known.auc:.3f} ({known.low:.3f} to {known.high:.3f})\n" in cell


def test_capacity_is_drawn_along_the_weights_a_line_for_each_recipe(table):
    joined = over_trainings(table)
    undefended = joined[joined["level"] == "none"]
    smaller = undefended.assign(level="capacity", defense="capacity", parameters=undefended["parameters"] / 4)
    both = pd.concat([undefended, smaller, undefended.assign(recipe="mae"), smaller.assign(recipe="mae")])
    axes = plots.capacity(both)
    lines = [one.lines[0].get_xdata() for one in axes[0].containers]
    assert len(lines) == 2 and all(np.diff(x).tolist() == [undefended["parameters"].iloc[0] * 0.75] for x in lines)
    assert axes[0].get_xscale() == "log" and {"simclr", "mae"} == set(axes[1].get_legend_handles_labels()[1])


def halves():
    labelled = pl.load_images("partshapes", n=80, size=32, seed=9)
    return labelled.subset(slice(0, 40)), labelled.subset(slice(40, None))


def test_the_front_counts_each_defence_by_its_worst_attacker():
    rows = [("none", "as before", 0.9, 0.8), ("noise", "as before", 0.7, 0.5), ("noise", "adaptive", 0.7, 0.79)]
    rows += [("top-k", "as before", 0.8, 0.6)]
    found = with_front(pd.DataFrame(rows, columns=["level", "attacker", "probe", "auc"]).assign(recipe="simclr"))
    assert found.front.tolist() == [True, False, False, True]


def test_below_chance_is_no_better_than_chance():
    rows = [("none", 0.9, 0.6), ("top-k", 0.8, 0.48), ("noise", 0.7, 0.44), ("rounding", 0.8, 0.5)]
    found = with_front(pd.DataFrame(rows, columns=["level", "probe", "auc"]).assign(recipe="simclr"))
    assert found.front.tolist() == [True, True, False, True] and found.auc.tolist() == [0.6, 0.48, 0.44, 0.5]


def test_each_group_has_a_front_of_its_own():
    points = [("none", 0.9, 0.6), ("top-k", 0.8, 0.5)]
    rows = [(n, level, probe, auc + n / 1000) for n in (50, 100) for level, probe, auc in points]
    found = with_front(pd.DataFrame(rows, columns=["N", "level", "probe", "auc"]), by="N")
    assert found.front.tolist() == [True] * 4


def test_trainings_are_averaged_with_their_spread(table):
    other = table.assign(auc=table.auc + 0.1, low=table.low + 0.1, high=table.high + 0.1, training_seed=1)
    joined = over_trainings(pd.concat([table, other]))
    assert joined.trainings.tolist() == [2] * 7
    np.testing.assert_allclose(joined.auc, table.auc + 0.05)
    error = np.sqrt(((table.high - table.low) / 2 / 1.959964) ** 2 + (0.1**2 / 2) / 2)
    inside = (joined.auc - 1.96 * error > 0) & (joined.auc + 1.96 * error < 1) & (table.low > 0) & (other.high < 1)
    assert inside.any()
    np.testing.assert_allclose((joined.high - joined.low)[inside], 2 * 1.959964 * error[inside], rtol=1e-4)


def test_trainings_are_told_as_the_papers_tables(table):
    found = paper_tables(over_trainings(table))
    assert list(found) == ["noise", "query-limit", "early-stop", "scsr"]
    assert found["early-stop"].index.tolist() == ["none", "early-stop share=0.5"]
    cell, row = found["noise"].loc["noise sigma=5.0", "simclr"], table.iloc[2]
    lines = cell.splitlines()
    assert lines[0].startswith("AUC 0.") and lines[1] == f"adaptive {row.auc:.3f} ({row.low:.3f} to {row.high:.3f})"
    assert lines[2] == f"probe {100 * row.probe:.1f} %, 1 training"
    both = over_trainings(pd.concat([table, table.assign(recipe="mae").query("level == 'none'")]))
    assert paper_tables(both)["noise"].loc["noise sigma=5.0", "mae"] == "not trained"
    private = table.assign(guarantee="(8, 1e-05)-differential privacy of each image for the weights, by Opacus")
    coupled = table.assign(guarantee="no formal guarantee: the loss of simclr is not computed image by image")
    for one, said in ((private, "(8, 1e-05)-differential privacy"), (coupled, "no formal guarantee")):
        assert paper_tables(over_trainings(one))["noise"].iloc[1, 0].splitlines()[-1] == said
    axes = plots.word_tables(found).axes
    assert [ax.get_title("left") for ax in axes] == list(found)


def test_a_tradeoff_is_saved_with_its_figure(table, tmp_path):
    paths = save_tradeoff(table, tmp_path / "table.csv")
    assert [path.name for path in paths] == ["table.csv", "table.png", "table.json"]
    assert len(pd.read_csv(paths[0])) == 7 and paths[1].read_bytes().startswith(b"\x89PNG")


def test_from_the_shell_defences_stand_in_a_table(shell, split, tmp_path):
    pl.pretrain("simclr", split, 1, out=tmp_path, progress=False, **TINY_VIT)
    target = ["--encoder", tmp_path / "encoder.safetensors", "--attack", "partcosine crops=3", "--quiet"]
    dp, scsr = ["--defense", "dp-sgd epsilon=50"], ["--defense", "scsr scale=(0.3, 0.6)"]
    status, out, _ = shell("defend", *target, *dp, *scsr, "--runs", tmp_path / "runs", "--out", tmp_path / "t.csv")
    assert status == 0 and "dp-sgd epsilon=50: no formal guarantee: the loss of simclr" in out
    assert "scsr scale=(0.3, 0.6)" in out and "adaptive" in out and (tmp_path / "t.png").exists()
    assert (tmp_path / "runs" / "dp-sgd_epsilon=50" / "encoder.safetensors").exists()
    status, _, err = shell("defend", *target, "--defense", "noise loudness=3")
    assert status == 2 and "the defence noise has no setting loudness; it has sigma, seed" in err[-1]


def test_the_probe_is_that_of_an_independent_pipeline(encoder):
    """scikit-learn's own steps, to one point of accuracy."""
    train, test = halves()
    X, Y = (encoder.vectors(side.batch(slice(None)), "mean").numpy() for side in (train, test))
    mean, std = X.mean(0), X.std(0)
    fitted = LogisticRegression(C=0.1, max_iter=2000, solver="newton-cg").fit((X - mean) / std, train.labels)
    accuracy = fitted.score((Y - mean) / std, test.labels)
    assert abs(accuracy - linear_probe(encoder, train, test)) <= 0.01


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (lambda: make_defense("prayer"), "defense is 'prayer'; it must be one of augmentation, capacity"),
        (lambda: EarlyStop(0), "share is 0; it must be above 0"),
        (lambda: SCSR((0.6, 0.2)), "must be a range within"),
        (lambda: OutputNoise(-1), "sigma is -1"),
        (lambda: Rounding(0), "step is 0"),
        (lambda: TopK(2), "share is 2"),
        (lambda: EarlierLayer(0), "blocks is 0"),
        (lambda: QueryLimit(2), "queries is 2; it must be at least 3"),
    ],
)
def test_wrong_settings_are_refused_with_the_right_ones(bad, told):
    with pytest.raises(ValueError, match=told):
        bad()
