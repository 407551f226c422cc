import tomllib
import traceback

import pytest

from pipeline.errors import ConfigError
from pipeline.models.families import FAMILIES
from pipeline.steps import demo
from pipeline.workspace.config import TEMPLATE, compose, dump, load, settings
from tests import worlds
from tests.raising import raises


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "nightjar.toml"
    path.write_text(TEMPLATE)
    return path


def refused(file, text, environment=None):
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        compose(file, environment or {})
    return caught.value.sentence


@pytest.mark.parametrize("text", [TEMPLATE, demo.TEMPLATE, worlds.CONFIG, ""])
def test_our_own_templates_are_valid_and_survive_a_round_trip(file, text):
    file.write_text(text)
    config = compose(file, {}).config
    assert load(dump(config)) == config
    assert "popularity" in config.recipes


@pytest.mark.parametrize("installed", [True, False])
def test_the_demo_trains_lightfm_where_it_is_installed(file, monkeypatch, installed):
    spec = object() if installed else None
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: spec)
    file.write_text(demo.template())
    recipes = compose(file, {}).config.recipes
    assert {"blend", "als", "als_overconfident"} < set(recipes)
    assert [recipes[name].family for name in recipes if name == "lightfm"] == [
        "lightfm"
    ] * installed


def test_the_template_is_short():
    lines = [line for line in TEMPLATE.splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 5
    assert tomllib.loads(TEMPLATE)["split"]["task"] == "auto"


def test_an_error_names_the_field_and_the_allowed_values(file):
    sentence = refused(file, "[gate]\nalpa = 0.1\n")
    assert sentence.startswith("nightjar.toml: unknown setting gate.alpa. Allowed: alpha,")
    assert sentence.endswith("; nearest: alpha")


def test_a_wrong_section_names_the_sections(file):
    message = refused(file, "[splt]\n")
    assert "unknown setting splt. Allowed: sources, ingest, privacy, validate" in message


def test_a_wrong_value_names_field_value_and_bound(file):
    sentence = refused(file, "[gate]\nalpha = 2.0\n")
    assert sentence == "nightjar.toml: gate.alpha = 2.0: input should be less than 0.5"
    sentence = refused(file, '[split]\ntask = "sometimes"\n')
    assert "split.task = 'sometimes'" in sentence
    assert "'auto', 'repeat' or 'discovery'" in sentence


@pytest.mark.parametrize(("mode", "blocks"), [("nightly", 0), ("adaptive", 4), ("both", 4)])
def test_where_the_policy_starts_runs_earlier_blocks_are_evaluated(file, mode, blocks):
    file.write_text(f'[schedule]\nmode = "{mode}"\n')
    config = compose(file, {}).config
    assert config.gate.catch_up_blocks == blocks
    assert load(dump(config)) == config
    file.write_text(f'[schedule]\nmode = "{mode}"\n[gate]\ncatch_up_blocks = 0\n')
    assert compose(file, {}).config.gate.catch_up_blocks == 0
    environment = {"NIGHTJAR__GATE__CATCH_UP_BLOCKS": "2"}
    assert compose(file, environment).config.gate.catch_up_blocks == 2


def test_a_wrong_schedule_names_the_field_and_a_valid_value(file):
    sentence = refused(file, '[schedule]\ncron = "61 3 * * *"\n')
    assert sentence.startswith("nightjar.toml: schedule.cron = '61 3 * * *': ")
    assert sentence.endswith("write five fields, such as 0 3 * * *")
    sentence = refused(file, '[schedule]\ntimezone = "Mars/Olympus"\n')
    assert sentence == (
        "nightjar.toml: schedule.timezone = 'Mars/Olympus': is not a time zone; write UTC or "
        "Europe/Berlin"
    )


def test_an_unknown_family_names_the_families(file):
    sentence = refused(file, '[recipes.x]\nfamily = "alz"\n')
    assert sentence.startswith("nightjar.toml: unknown family 'alz' in recipes.x. Allowed: ")
    assert "'als'" in sentence
    assert sentence.endswith("; nearest: als")


def test_a_wrong_field_of_a_recipe_names_those_of_its_family(file):
    sentence = refused(file, '[recipes.x]\nfamily = "als"\nfactor = 3\n')
    assert "unknown setting recipes.x.factor." in sentence
    assert "factors" in sentence


def test_a_wrong_field_of_a_nested_recipe_names_its_place_and_those_of_its_family(file):
    for outer in ("[recipes.x.factors_of]", "[recipes.x.parts.a]"):
        family = "ridge" if "factors_of" in outer else "blend"
        sentence = refused(
            file, f'[recipes.x]\nfamily = "{family}"\n{outer}\nfamily = "als"\nalpa = 1\n'
        )
        place = outer.strip("[]")
        assert sentence.startswith(f"nightjar.toml: unknown setting {place}.alpa. Allowed: ")
        assert "alpha" in sentence
        assert "item_limit" not in sentence and "spread" not in sentence


def test_errors_of_a_whole_recipe_name_the_recipe(file):
    part = '[recipes.x.parts.als]\nfamily = "als"\n'
    sentence = refused(file, f'[recipes.x]\nfamily = "blend"\nweights = {{ alss = 1 }}\n{part}')
    assert sentence == "nightjar.toml: recipes.x: weights: unknown part 'alss'. Allowed: als"


def test_a_baseline_keeps_its_family(file):
    sentence = refused(file, '[recipes.popularity]\nfamily = "als"\n')
    assert sentence.startswith("nightjar.toml: recipes.popularity.family = 'als'")
    assert "another name" in sentence


def test_a_bad_variable_is_named_in_the_error(file):
    for name, value, sentence in (
        ("NIGHTJAR__GATE__ALPHA", "2", "environment NIGHTJAR__GATE__ALPHA: gate.alpha = 2: "),
        ("NIGHTJAR__FOO__BAR", "1", "environment NIGHTJAR__FOO__BAR: unknown setting foo"),
    ):
        assert refused(file, "", {name: value}).startswith(sentence)
    for misspelt in ("NIGHTJAR__VAULT_KEY", "NIGHTJAR__VAULT__KEY"):
        assert "PLANTED" not in refused(file, "", {misspelt: "PLANTED"})


def test_the_environment_changes_one_field_of_a_default_recipe(file):
    file.write_text("")
    config = compose(file, {"NIGHTJAR__RECIPES__ALS__FACTORS": "32"}).config
    assert (config.recipes["als"].family, config.recipes["als"].factors) == ("als", 32)


def test_a_recipe_without_a_family(file):
    sentence = refused(file, "[recipes.x]\nfactors = 3\n")
    problem, _, allowed = sentence.partition("; write family = one of: ")
    assert problem == "nightjar.toml: recipes.x has no family"
    assert allowed == ", ".join(repr(family) for family in FAMILIES)


@pytest.mark.parametrize(
    "name",
    ["../../evil", "a/b", "a/../../x", "", ".hidden", "a b", "'; rm -rf", "<script>1\\n../../x"],
)
def test_a_recipe_is_a_folder_and_stays_in_its_run(file, name):
    sentence = refused(file, f'[recipes."{name}"]\nfamily = "als"\n')
    assert "is not a name of a recipe" in sentence
    assert sentence.isprintable()


def test_a_section_is_a_table(file):
    assert refused(file, "gate = 3\n") == "nightjar.toml: gate = 3: write it as a table, [gate]"


def test_an_address_that_mlflow_cannot_take(file):
    assert "tracking_uri = 'ftp://x'" in refused(file, '[registry]\ntracking_uri = "ftp://x"\n')


def test_several_faults_are_counted(file):
    assert refused(file, "[gate]\nalpha = 2\nmin_lift = -1\n").endswith("(and 1 more)")


@pytest.mark.parametrize("text", ["[gate", b"\xff\xfe"])
def test_text_that_is_not_toml_is_an_error(file, text):
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with raises("config.not_toml"):
        compose(file, {})


def test_the_environment_wins_and_is_named_as_source(file):
    file.write_text("[gate]\nalpha = 0.02\n")
    composed = compose(file, {"NIGHTJAR__GATE__ALPHA": "0.03", "NIGHTJAR_HOME": "/elsewhere"})
    assert composed.config.gate.alpha == 0.03
    by_path = {s.path: s for s in settings(composed)}
    assert by_path["gate.alpha"].origin == "environment NIGHTJAR__GATE__ALPHA"
    assert by_path["gate.min_lift"].origin == "default"


def test_text_from_the_environment_needs_no_quotes(file):
    assert compose(file, {"NIGHTJAR__SPLIT__TASK": "repeat"}).config.split.task == "repeat"


@pytest.mark.parametrize("name", ["NIGHTJAR__GATE", "NIGHTJAR____ALPHA"])
def test_an_environment_variable_without_a_field(file, name):
    assert "sets no field" in refused(file, "", {name: "1"})


def test_every_setting_is_described(file):
    file.write_text(demo.TEMPLATE)
    described = list(settings(compose(file, {})))
    assert len(described) > 60
    assert [s.path for s in described if not s.description] == []
    assert {s.path: s.origin for s in described}["sources.purchases.columns"] == "nightjar.toml"


def test_naming_recipes_keeps_the_baselines(file):
    file.write_text('[recipes.mine]\nfamily = "als"\n')
    assert set(compose(file, {}).config.recipes) == {
        "popularity",
        "decayed_popularity",
        "personal_frequency",
        "mine",
    }


def test_a_source_of_one_table_keeps_the_defaults_of_the_others(file):
    file.write_text('[sources.orders]\ntable = "events"\npath = "orders-*.csv"\n')
    sources = compose(file, {}).config.sources
    assert {name: source.table for name, source in sources.items()} == {
        "items": "items",
        "users": "users",
        "orders": "events",
    }


def test_thresholds_that_contradict_each_other(file):
    assert "gate.min_users = 500" in refused(file, "[gate]\nmin_users = 500\n")


def test_a_fallback_is_a_baseline(file):
    words = refused(file, '[gate]\nfallback = "als"\n')
    assert "gate.fallback = 'als' is not a baseline; write one of popularity" in words


def test_each_kind_needs_a_weight(file):
    text = '[ingest]\nkinds = ["view", "order"]\n'
    sentence = refused(file, text)
    assert sentence.startswith("nightjar.toml: ingest.kinds has 'order', which has no weight")
    file.write_text(text + "[features]\nweights = { order = 3 }\n")
    assert compose(file, {}).config.features.weights["order"] == 3


def test_settings_of_another_version_are_named(file):
    file.write_text("")
    kept = dump(compose(file, {}).config)
    kept["ingest"]["retrain_min_new_events"] = 1000
    with raises("config.unknown_setting"):
        load(kept)


URI = "http://user:PLANTED/1@127.0.0.1"


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("registry.tracking_uri", f'[registry]\ntracking_uri = "{URI}"'),
        ("sources.s.path", f'[sources.s]\npath = "{URI}"'),
        ("sources.s.skip_when.kind", f'[sources.s]\nskip_when = {{ kind = ["{URI}"] }}'),
        ("sinks.lists.uri", '[sinks.lists]\nuri = "postgresql+psycopg2://user:PLANTED@host/db"'),
        ("sinks.uri", '[sinks]\nuri = "HTTPS://PLANTED@host"'),
        ("sinks.uri", '[sinks]\nuri = "postgresql://host/db?user=u&sslpassword=PLANTED"'),
        ("sinks.uri", '[sinks]\nuri = "https://host/lists?X-Amz-Signature=PLANTED"'),
        ("registry.tracking_uri", '[registry]\ntracking_uri = "https://host?API-KEY=PLANTED"'),
        ("registry.tracking_uri", '[registry]\ntracking_uri = "https://h/#access%5ftoken=PLANTED"'),
        ("sinks.uri", '[sinks]\nuri = "https://host/container?sv=1&sig=PLANTED"'),
    ],
)
def test_a_uri_with_a_login_is_refused_in_any_field_and_not_shown(file, field, text):
    file.write_text(text)
    with raises("config.login_in_uri") as caught:
        compose(file, {})
    assert f" {field} " in caught.value.sentence
    assert "PLANTED" not in "".join(traceback.format_exception(caught.value))


def test_a_uri_with_a_login_in_the_environment_is_refused(file):
    with raises("config.login_in_uri") as caught:
        compose(file, {"NIGHTJAR__SOURCES__S__PATH": URI})
    assert "environment NIGHTJAR__SOURCES__S__PATH" in caught.value.sentence
    assert "PLANTED" not in caught.value.sentence


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////home/a@b/mlflow.db",
        "http://127.0.0.1:5000",
        "https://host/mlflow?sslkey=/keys/client.key",
    ],
)
def test_a_uri_without_a_login_is_accepted(file, uri):
    file.write_text(f'[registry]\ntracking_uri = "{uri}"')
    assert compose(file, {}).config.registry.tracking_uri == uri


@pytest.mark.parametrize(
    "text", ['[registry]\ntracking_uri = "user:PLANTED@host"', '[gate]\nalpha = "PLANTED@x"']
)
def test_the_traceback_of_an_invalid_value_does_not_show_it(file, text):
    file.write_text(text)
    with raises("config.invalid_value") as caught:
        compose(file, {})
    assert "PLANTED" not in "".join(traceback.format_exception(caught.value))


def test_a_refused_cron_is_shown(file):
    file.write_text('[schedule]\ncron = "@daily"\n')
    with raises("config.invalid_value") as caught:
        compose(file, {})
    assert "schedule.cron = '@daily'" in caught.value.sentence


@pytest.mark.parametrize("number", ["inf", "-inf", "nan"])
def test_numbers_of_a_config_are_finite(file, number):
    for field in ("validate.volume.day_factor", "drift.single_day_z"):
        section, _, name = field.rpartition(".")
        assert field in refused(file, f"[{section}]\n{name} = {number}\n")


def test_values_nested_too_deep_are_an_error_and_not_a_defect(file):
    deep = "[" * 5_000
    assert "nightjar.toml" in refused(file, f"a = {deep}")
    assert "NIGHTJAR__GATE__ALPHA" in refused(file, "", {"NIGHTJAR__GATE__ALPHA": deep})
    name = f"NIGHTJAR__{'A__' * 5_000}B"
    assert "nested too deep" in refused(file, "", {name: "1"})
    assert "nested too deep" in refused(file, ".".join("a" * 5_000) + " = 1")
