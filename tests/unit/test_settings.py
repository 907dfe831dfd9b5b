"""Settings: what is read, what is refused, and what the refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest

from memos.errors import ConfigError
from memos.settings import ALIASES, Settings, known_names


def test_defaults_need_no_environment() -> None:
    """With an empty environment the settings are whole and name the platform's data directory."""
    settings = Settings.load({})
    assert settings.queue.effective_backend == "sqlite"
    assert settings.queue_path == settings.home / "queue.db"
    assert settings.home.is_absolute()
    assert settings.store_path == settings.home / "memory.db"
    assert settings.memory.working_capacity == 20
    assert settings.memory.long_term_capacity == settings.memory.user_capacity == 10_000


def test_canonical_names_set_nested_values() -> None:
    """`MEMOS_<SECTION>__<FIELD>` sets that field, with its type."""
    settings = Settings.load(
        {
            "MEMOS_HOME": "/somewhere",
            "MEMOS_SCHEDULER__TOP_K": "7",
            "MEMOS_SCHEDULER__DISABLED_HANDLERS": "mem_read, pref_add",
            "MEMOS_API__ENABLE_CHAT": "on",
        }
    )
    assert settings.home == Path("/somewhere")
    assert settings.scheduler.top_k == 7
    assert settings.scheduler.disabled_handlers == ("mem_read", "pref_add")
    assert settings.api.enable_chat is True


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("MOS_ENABLE_SCHEDULER", "false", ("scheduler", "enabled"), False),
        ("API_SCHEDULER_ON", "false", ("scheduler", "enabled"), False),
        ("MOS_SCHEDULER_USE_REDIS_QUEUE", "false", ("queue", "use_redis"), False),
        ("MOS_SCHEDULER_TOP_K", "3", ("scheduler", "top_k"), 3),
        ("ENABLE_CHAT_API", "true", ("api", "enable_chat"), True),
        ("MOS_WORKING_MEMORY", "40", ("memory", "working_capacity"), 40),
    ],
)
def test_documented_names_are_aliases(name: str, text: str, path: tuple[str, str], value: object) -> None:
    """The names that the documents print set the same values as the canonical ones."""
    settings = Settings.load({name: text})
    assert getattr(getattr(settings, path[0]), path[1]) == value


def test_aliases_that_disagree_are_an_error_naming_both() -> None:
    """Two names that say different things about one setting stop the start, and both are named."""
    with pytest.raises(ConfigError) as caught:
        Settings.load({"MOS_ENABLE_SCHEDULER": "true", "API_SCHEDULER_ON": "false"})
    assert "MOS_ENABLE_SCHEDULER" in str(caught.value)
    assert "API_SCHEDULER_ON" in str(caught.value)


def test_aliases_that_agree_are_fine() -> None:
    """Saying the same thing twice, in other words, is no conflict."""
    assert Settings.load({"MOS_ENABLE_SCHEDULER": "true", "API_SCHEDULER_ON": "1"}).scheduler.enabled


def test_unknown_names_of_ours_are_refused_with_the_nearest() -> None:
    """A mistyped `MEMOS_*` name fails at start and names what was probably meant."""
    with pytest.raises(ConfigError, match="MEMOS_QUEUE__BACKEND"):
        Settings.load({"MEMOS_QUEUE__BACKEN": "local"})


def test_names_of_others_are_left_alone() -> None:
    """Variables without our prefix and outside the aliases are none of our business."""
    assert Settings.load({"PATH": "/bin", "REDIS_URL": "x"}) == Settings.load({})


def test_a_known_name_without_effect_warns() -> None:
    """A switch of the reference implementation that does nothing here says so."""
    with pytest.warns(UserWarning, match="MEMOS_ENABLE_REDIS does nothing"):
        Settings.load({"MEMOS_ENABLE_REDIS": "true"})


@pytest.mark.parametrize(
    "environment",
    [
        {"MEMOS_SCHEDULER__TOP_K": "-1"},
        {"MEMOS_SCHEDULER__WORKERS": "many"},
        {"MEMOS_API__PORT": "99999"},
        {"MOS_ENABLE_SCHEDULER": "perhaps"},
        {"MEMOS_QUEUE__MESSAGES_MAX": "0"},
        {"MOS_WORKING_MEMORY": "-5"},
        {"MEMOS_LOG__LEVEL": "LOUD"},
    ],
)
def test_bad_values_name_themselves(environment: dict[str, str]) -> None:
    """A value that cannot work is refused with the value in the text."""
    (value,) = environment.values()
    with pytest.raises(ConfigError) as caught:
        Settings.load(environment)
    assert value in str(caught.value)


def test_an_empty_variable_is_an_unset_one() -> None:
    """`NAME=` in a container file means nothing was said."""
    assert Settings.load({"MOS_SCHEDULER_TOP_K": ""}).scheduler.top_k == 10


def test_yaml_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    """`MEMOS_CONFIG` names a YAML file of the same tree; the environment overrides it."""
    file = tmp_path / "memos.yaml"
    file.write_text("scheduler:\n  top_k: 4\n  workers: 8\n")
    settings = Settings.load({"MEMOS_CONFIG": str(file), "MOS_SCHEDULER_TOP_K": "9"})
    assert (settings.scheduler.top_k, settings.scheduler.workers) == (9, 8)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("scheduler:\n  topk: 4\n", "scheduler.topk"),
        ("sheduler:\n  top_k: 4\n", "sheduler"),
        ("- 1\n", "mapping"),
        ("a: [", "not YAML"),
        ("scheduler: 3\n", "scheduler"),
    ],
)
def test_yaml_faults_are_named(tmp_path: Path, text: str, named: str) -> None:
    """A wrong key or shape in the file is refused, and the text says which."""
    file = tmp_path / "memos.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=named):
        Settings.load({"MEMOS_CONFIG": str(file)})


def test_a_missing_yaml_file_is_refused(tmp_path: Path) -> None:
    """A configuration file that is not there is an error, not an empty one."""
    with pytest.raises(ConfigError, match="cannot be read"):
        Settings.load({"MEMOS_CONFIG": str(tmp_path / "none.yaml")})


def test_secrets_are_masked() -> None:
    """What `memos doctor` prints does not hold the key."""
    shown = str(Settings.load({"MEMOS_API__KEY": "hush-hush"}).masked())
    assert "hush" not in shown


def test_every_alias_points_at_a_setting() -> None:
    """No alias leads nowhere."""
    paths = set(known_names().values())
    assert {path for path, _ in ALIASES.values()} <= paths


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("MOS_CHAT_MODEL", "qwen3:4b", "chat_model", "qwen3:4b"),
        ("OPENAI_API_BASE", "http://h/v1", "chat_base_url", "http://h/v1"),
        ("MOS_MAX_TOKENS", "100", "chat_tokens_max", 100),
        ("MEMRADER_MODEL", "r", "reader_model", "r"),
        ("MEMRADER_API_BASE", "http://r/v1", "reader_base_url", "http://r/v1"),
        ("MEMREADER_GENERAL_MODEL", "g", "scheduler_model", "g"),
        ("MOS_EMBEDDER_API_BASE", "http://e/v1", "embedder_base_url", "http://e/v1"),
        ("MOS_RERANKER_BACKEND", "cosine_local", "reranker", "none"),
    ],
)
def test_the_documented_names_of_models_are_aliases(name: str, text: str, field: str, value: object) -> None:
    """The models' documented names set the fields of the models section."""
    assert Settings.load({name: text}).models.model_dump()[field] == value


def test_backends_keep_their_documented_names() -> None:
    """`universal_api` and `http_bge` mean the adapters over HTTP."""
    models = Settings.load(
        {
            "MOS_EMBEDDER_BACKEND": "universal_api",
            "MOS_EMBEDDER_MODEL": "e",
            "MOS_RERANKER_BACKEND": "http_bge",
            "MOS_RERANKER_URL": "http://r/rerank",
        }
    ).models
    assert (models.embedder, models.reranker) == ("openai", "http")


def test_what_a_model_needs_is_said() -> None:
    """An embedder without a model and a reranker without an address name the missing setting."""
    with pytest.raises(ConfigError, match="MEMOS_MODELS__EMBEDDER_MODEL"):
        Settings.load({"MOS_EMBEDDER_BACKEND": "ollama"})
    with pytest.raises(ConfigError, match="MEMOS_MODELS__RERANKER_URL"):
        Settings.load({"MEMOS_MODELS__RERANKER": "http"})


def test_the_weights_of_users_are_a_json_object() -> None:
    """The variable and the YAML file say the same thing; what is no object is refused."""
    settings = Settings.load({"MEMOS_QUEUE__USER_WEIGHTS": '{"alice": 3, "b:c": 0.5}'})
    assert settings.queue.user_weights == {"alice": 3.0, "b:c": 0.5}
    for wrong in ("alice=3", "[3]", '{"alice": "much"}'):
        with pytest.raises(ConfigError, match=r"(?i)user_weights"):
            Settings.load({"MEMOS_QUEUE__USER_WEIGHTS": wrong})


def test_the_list_of_chat_models_is_json() -> None:
    """CHAT_MODEL_LIST brings the models it says it supports; other fields of an entry do no harm."""
    text = (
        '[{"backend": "openai", "model_name_or_path": "big", "api_base": "http://b/v1", "api_key": "hush",'
        ' "support_models": ["big", "bigger"]}, {"model_name_or_path": "small"}]'
    )
    settings = Settings.load({"CHAT_MODEL_LIST": text})
    assert [one.names for one in settings.models.chat_models] == [("big", "bigger"), ("small",)]
    assert "hush" not in str(settings.masked())
    assert Settings.load({"MEMOS_MODELS__CHAT_MODELS": text}) == settings.model_copy()


@pytest.mark.parametrize(
    "environ",
    [
        {"OPENAI_API_KEY": "hush-1", "MEMOS_MODELS__CHAT_API_KEY": "hush-2"},
        {"CHAT_MODEL_LIST": '[{"api_key": "hush"'},
        {"CHAT_MODEL_LIST": '[{"api_key": "hush"}]'},
        {"OPENAI_API_KEY": "hush", "MOS_EMBEDDER_BACKEND": "ollama"},
        {"OPENAI_API_KEY": "hush", "MEMOS_MODELS__CHAT_TOP_P": "7"},
    ],
)
def test_no_key_stands_in_an_error(environ: dict[str, str]) -> None:
    """Whatever is wrong with the settings of models, the text does not show a key."""
    with pytest.raises(ConfigError) as caught:
        Settings.load(environ)
    assert "hush" not in str(caught.value)


def test_a_list_can_be_set_to_nothing() -> None:
    """The word none is the empty list; an empty variable leaves the default."""
    name = "MEMOS_SCHEDULER__MODEL_STEPS"
    assert Settings.load({name: "none"}).scheduler.model_steps == ()
    assert Settings.load({name: "rank, intent"}).scheduler.model_steps == ("rank", "intent")
    assert len(Settings.load({name: ""}).scheduler.model_steps) >= 5


def test_an_address_of_a_store_shows_no_password() -> None:
    """Neither the tree for people, nor the place, nor an error about the address holds the password."""
    settings = Settings.load({"MEMOS_STORE__URL": "postgresql://ann:geheim@db.example:5433/memory?x=1"})
    assert "geheim" not in str(settings.masked()) + settings.store_place + repr(settings)
    assert settings.store_place == "postgresql://ann@db.example:5433/memory (schema memos)"
    with pytest.raises(ConfigError, match="postgresql://") as caught:
        Settings.load({"MEMOS_STORE__URL": "host=db password=geheim"})
    assert "geheim" not in str(caught.value)
