"""The short plan leaves out what it says and no more."""

import itertools
from collections import Counter

import pytest
import test_every_model_type
import test_families
import test_forward
import test_generation
import test_model
import test_training
import test_windows
from matrix import CASES, STRATEGIES, case_id, gap
from plan import DIFFERENT, KINDS, MORE, ONE_IN, backends_of, differs, methods
from sparse import EVERY, Turns

import seeless as sl
from seeless.strategy import Stage
from tinies import TINIES
from tiny_models import BACKENDS, LAYERS, SOME

OF_PAIRS = (
    test_forward.test_dropped_positions_carry_the_last_kept_token,
    test_forward.test_a_row_of_a_batch_equals_the_row_alone,
    test_forward.test_budget_is_met_exactly_and_no_text_is_touched,
)
OF_VARIANTS = (
    test_model.test_remove_undoes_everything,
    test_model.test_nobody_notices,
    test_model.test_no_attention_map_and_no_more_memory_than_the_untouched_model,
)
COVERING = (
    test_families.test_dropping_inside_deepstack,
    test_generation.test_beam_search_scores_are_the_oracles,
    test_generation.test_without_cache_every_step_is_a_prefill,
    test_generation.test_conversation_continues_on_the_reduced_cache,
    test_generation.test_an_image_after_a_cached_prefix,
    test_generation.test_static_caches_give_the_same,
    test_generation.test_every_bookkeeping_choice,
    test_generation.test_padded_prompts_that_an_entry_cut_makes_equally_long,
    test_model.test_training_loss_and_gradients_are_the_oracles,
    test_windows.test_prefill_a_turn_of_text_and_steps,
)
IN_TURNS = (
    test_model.test_peft_wrapped,
    test_model.test_dispatched_over_devices,
    test_training.test_it_ranks_by_the_tokens_before_answers,
    test_training.test_loss_and_gradients_are_the_oracles,
    test_windows.test_an_image_in_a_later_turn,
)
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}


def rows(test, short=True):
    """The values of a test's arguments, combination by combination; those of the short plan, or all."""
    (mark,) = (mark for mark in test.pytestmark if mark.name == "parametrize")
    return [tuple(row.values) for row in mark.args[1] if not (short and row.marks)]


def works(case, name):
    return gap(case[0], name, "sdpa", case[1]) is None


def kinds_of(names):
    return {KIND_OF[name] for name in names}


def test_kinds_are_what_methods_do():
    assert sorted(KIND_OF) == sorted(STRATEGIES)
    for name, strategy in STRATEGIES.items():
        kind, layers = KIND_OF[name], strategy.layers(LAYERS)
        assert (kind == "tower") == (strategy.stage is Stage.TOWER)
        if kind == "tower":
            continue
        assert (kind == "second forward") == (type(strategy).prepare is not sl.Strategy.prepare)
        assert (kind in ("several layers", "merge in layers")) == (len(layers) > 1)
        assert (kind in ("entry", "merge")) == (layers == [0])


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_method_meets_a_third_of_the_families_before_the_oracle(name):
    met = {case for case, own in rows(test_forward.test_oracle_prefill_and_decode) if own == name}
    assert len(met) >= len(CASES) // ONE_IN and {case for case in CASES if differs(case)} < met
    for case in met:
        chosen = backends_of(case, name)
        assert chosen and set(chosen) <= set(BACKENDS)
        if works(case, name):
            assert any(gap(case[0], name, backend, case[1]) is None for backend in chosen)
    assert {backend for case in CASES for backend in backends_of(case, name)} == set(BACKENDS)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_every_family_meets_every_kind_on_every_backend_before_the_oracle(case):
    everywhere = [name for name in STRATEGIES if backends_of(case, name) == BACKENDS and works(case, name)]
    assert kinds_of(everywhere) == kinds_of(name for name in STRATEGIES if works(case, name))
    assert {backend for name in STRATEGIES for backend in backends_of(case, name)} == set(BACKENDS)


@pytest.mark.parametrize("test", OF_PAIRS, ids=lambda test: test.__name__)
def test_contracts_of_pairs(test):
    """Every method on three families that differ, every family with every kind; the full product is all pairs."""
    short = set(rows(test))
    assert set(rows(test, short=False)) == set(itertools.product(CASES, STRATEGIES)) > short
    for case in CASES:
        met = {name for other, name in short if other == case}
        possible = {name for name in STRATEGIES if works(case, name)}
        assert kinds_of(met) == kinds_of(possible)
        if differs(case):
            assert met == set(STRATEGIES)
    for name in STRATEGIES:
        families = {str(case[0]).split("-")[0] for case, other in short if other == name and works(case, name)}
        assert len(families) >= 3, name
        videos = {str(case[0]) for case, other in short if other == name and case[1] == "video"}
        assert len(videos) >= 3 or name not in ("evs", "vidcom2")


def test_contracts_do_not_meet_the_same_pairs():
    met = [set(rows(test)) for test in OF_PAIRS]
    assert len(set.union(*met)) > 1.4 * max(map(len, met))


def test_identity_and_bfloat16_meet_every_kind_on_every_backend():
    """Their tests take the methods themselves."""
    for turn, case in itertools.product(range(5), CASES):
        assert kinds_of(methods(case, turn)) == kinds_of(name for name in STRATEGIES if works(case, name))


@pytest.mark.parametrize("test", OF_VARIANTS, ids=lambda test: test.__name__)
def test_contracts_of_variants(test):
    short = set(rows(test))
    for variant in {variant for variant, _ in rows(test, short=False)}:
        met = {name for other, name in short if other == variant}
        assert kinds_of(met) == set(KINDS)
        assert variant not in SOME or met == set(STRATEGIES)


@pytest.mark.parametrize("test", COVERING, ids=lambda test: test.__name__)
def test_any_two_values_of_two_arguments_meet(test):
    short, product = rows(test), rows(test, short=False)
    assert len(short) < len(product)
    for i, j in itertools.combinations(range(len(product[0])), 2):
        assert {(id(row[i]), id(row[j])) for row in short} == {(id(row[i]), id(row[j])) for row in product}


@pytest.mark.parametrize("test", IN_TURNS, ids=lambda test: test.__name__)
def test_every_value_has_its_turn(test):
    short, product = rows(test), rows(test, short=False)
    for i in range(2):
        assert {row[i] for row in short} == {row[i] for row in product}
    assert len(short) == max(len({row[i] for row in product}) for i in range(2))


def test_no_test_is_left_out_but_as_checked_here():
    """Whatever has combinations outside the short plan is in one of the lists above."""
    known = {*OF_PAIRS, *OF_VARIANTS, *COVERING, *IN_TURNS, test_model.test_compiled}
    known.add(test_forward.test_oracle_prefill_and_decode)
    for module in (test_families, test_forward, test_generation, test_model, test_training, test_windows):
        for name, test in vars(module).items():
            if not name.startswith("test_") or not callable(test):
                continue
            for mark in getattr(test, "pytestmark", []):
                rows_given = mark.args[1] if mark.name == "parametrize" else []
                marks = [mark.name, *(own.name for row in rows_given for own in getattr(row, "marks", ()))]
                assert test in known or "full" not in marks, name


def test_families_built_as_others_meet_every_eighth_combination():
    """The oracle of the package meets them all the same."""
    sparse = [own for own in TINIES if own.sparse]
    turns, met = Turns(), Counter()
    for own, name in itertools.product(sparse, STRATEGIES):
        met[str(own), name] += turns.has("some test", [(own, "image"), name])
    for own in sparse:
        names = {name for name in STRATEGIES if met[str(own), name]}
        assert len(STRATEGIES) // EVERY <= len(names) <= len(STRATEGIES) // EVERY + 1
    assert len({name for _, name in met if any(met[str(own), name] for own in sparse)}) == len(STRATEGIES)
    assert all(Turns().has("some test", [(own, "image")]) for own in TINIES if not own.sparse)
    assert {own.config().model_type for own in sparse} <= set(test_every_model_type.SUPPORTED)


def test_families_that_stand_for_others_are_there():
    known = {(str(own), kind) for own in TINIES for kind in own.kinds}
    assert {*DIFFERENT, *MORE} <= known and {str(v) for v in SOME} == {"llava-llama-gqa", "llava_next-llama-mha"}
