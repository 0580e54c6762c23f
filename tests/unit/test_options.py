"""Options: the one table from strings to types."""

import pytest

from tus import Options, Tus, open_store
from tus.adapters.wsgi import WsgiAdapter
from tus.apps import files, operations
from tus.converters import as_bool, as_duration, as_origins, as_size, as_url_path
from tus.errors import OptionError, TusException

ADAPTER = WsgiAdapter({"REQUEST_METHOD": "GET", "SERVER_NAME": "localhost", "SERVER_PORT": "80"})


@pytest.mark.parametrize("word", ["true", "True", "YES", "on", "y", "t", "1", " true ", True])
def test_true(word):
    assert as_bool(word) is True


@pytest.mark.parametrize("word", ["false", "False", "NO", "off", "n", "f", "0", False])
def test_false(word):
    assert as_bool(word) is False


@pytest.mark.parametrize("word", ["", "maybe", "2", "none", None, 2])
def test_neither(word):
    with pytest.raises(ValueError, match="true or false"):
        as_bool(word)


@pytest.mark.parametrize(
    ("value", "size"),
    [("0", 0), ("500", 500), ("1k", 1024), ("10M", 10 << 20), ("2 GiB", 2 << 30), ("1TB", 1 << 40), ("7b", 7), (9, 9)],
)
def test_sizes(value, size):
    assert as_size(value) == size


@pytest.mark.parametrize("value", ["", "-1", "1.5M", "x", "10 P", "1 0", True, -1, 1.5, None])
def test_bad_sizes(value):
    with pytest.raises(ValueError, match="number of bytes"):
        as_size(value)


@pytest.mark.parametrize(
    ("value", "seconds"), [("3600", 3600), ("90m", 5400), ("12h", 43200), ("7d", 604800), ("5s", 5), (60, 60), ("0", 0)]
)
def test_durations(value, seconds):
    assert as_duration(value) == seconds


@pytest.mark.parametrize("value", ["", "-1", "1w", "1h30m", "x", True, 1.5])
def test_bad_durations(value):
    with pytest.raises(ValueError, match="number of seconds"):
        as_duration(value)


@pytest.mark.parametrize(
    ("value", "path"), [("/files", "/files"), ("/files/", "/files"), ("/a/b c", "/a/b c"), (" /x ", "/x")]
)
def test_url_paths(value, path):
    assert as_url_path(value) == path


@pytest.mark.parametrize("value", ["", "/", "files", "//", "/a//b", "/a?b", "/a#b", "http://x/files"])
def test_bad_url_paths(value):
    with pytest.raises(ValueError, match="path of a URL"):
        as_url_path(value)


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        ("https://a.example", ("https://a.example",)),
        ("https://a.example/, http://b.example:8080\nnull", ("https://a.example", "http://b.example:8080", "null")),
        (["https://a.example"], ("https://a.example",)),
        (("*",), ("*",)),
    ],
)
def test_origins(value, origins):
    assert as_origins(value) == origins


@pytest.mark.parametrize("value", ["example.org", "https://a.example/path", "* https://a.example", "https://", 7, {}])
def test_bad_origins(value):
    with pytest.raises(ValueError, match="origins"):
        as_origins(value)


def test_what_is_wrong_is_named(tmp_path):
    for values, option in (
        ({}, "tmp_file_dir"),
        ({"tmp_file_dir": "x", "max_sise": 1}, "max_sise"),
        ({"tmp_file_dir": "x", "max_size": "much"}, "max_size"),
        ({"tmp_file_dir": "x", "send_file": "perhaps"}, "send_file"),
        ({"tmp_file_dir": "x", "send_file": {}}, "send_file"),
        ({"tmp_file_dir": "x", "fsync": "sometimes"}, "fsync"),
        ({"tmp_file_dir": ""}, "tmp_file_dir"),
        ({"tmp_file_dir": "a\0b"}, "tmp_file_dir"),
        ({"tmp_file_dir": "x", "cors_allow_origin": "*", "cors_allow_credentials": "true"}, "cors_allow_credentials"),
        ({"tmp_file_dir": "x", "keep_finished": True, "completed_keep": 0}, "keep_finished"),
        ({"tmp_file_dir": "x", "min_rate": "1k", "stall_timeout": "0"}, "min_rate"),
        ({"tmp_file_dir": "x", "authorize": 7}, "authorize"),
        ({"tmp_file_dir": "x", "ask_app": {}}, "ask_app"),
        ({"tmp_file_dir": "x", "trusted_proxies": 7}, "trusted_proxies"),
        ({"tmp_file_dir": "x", "max_uploads": True}, "max_uploads"),
    ):
        with pytest.raises(OptionError) as wrong:
            Options.build(**values)
        assert wrong.value.option == option
        assert repr(option) in str(wrong.value)
    with pytest.raises(OptionError, match="known are tmp_file_dir, store"):
        Options.build(tmp_file_dir="x", nonsense=1)
    assert issubclass(OptionError, TusException)
    assert issubclass(OptionError, ValueError)


def test_equal_options_are_looked_at_once(tmp_path):
    values = {"tmp_file_dir": str(tmp_path), "cors_allow_origin": ["https://a.example"]}
    assert Options.build(**values) is Options.build(**values)


def test_a_view_can_share_options_or_name_them(tmp_path):
    options = Options.build(tmp_file_dir=str(tmp_path))
    assert Tus(ADAPTER, options=options).options is options
    assert Tus(ADAPTER, str(tmp_path), True, 60).options == Options.build(
        tmp_file_dir=str(tmp_path), send_file=True, upload_valid_duration=60
    )
    assert Tus(ADAPTER, tmp_file_dir=str(tmp_path), max_size=5).options.max_size == 5
    with pytest.raises(OptionError, match="send_file"):
        Tus(ADAPTER, send_file=True, options=options)
    with pytest.raises(OptionError, match="tmp_file_dir"):
        Tus(ADAPTER)


@pytest.mark.parametrize(
    ("option", "value", "near"),
    [
        ("max_sise", "1", "max_size"),
        ("handover", "backgroud", "background"),
        ("handover", "Request", "request"),
        ("fsync", "finsh", "finish"),
        ("interim", "alway", "always"),
        ("digest", "sha-256 sha521", "sha512"),
        ("protocols", "tus, itf", "ietf"),
        ("webhook_events", "post-finished", "post-finish"),
        ("ask_app", "create, apend", "append"),
        ("send_file", "ture", "true"),
        ("store", "memroy:", "memory"),
        ("hooks", type("Hooks", (), {"post_finished": lambda self, event: None}), "post_finish"),
    ],
)
def test_the_nearest_name_is_suggested(option, value, near):
    with pytest.raises(OptionError, match=rf"did you mean {near}\b") as wrong:
        open_store("", Options.build(**{"tmp_file_dir": "x", option: value})) if option != "store" else open_store(
            value
        )
    assert wrong.value.option == option


@pytest.mark.parametrize("value", ["sometimes-perhaps", 7, None, {}, ["x"]])
def test_nothing_is_suggested_for_what_is_near_to_nothing(value):
    for option in ("handover", "fsync", "interim", "digest", "protocols", "ask_app"):
        with pytest.raises(OptionError) as wrong:
            Options.build(tmp_file_dir="x", **{option: value})
        assert "did you mean" not in str(wrong.value)


def test_the_nearest_option_of_an_application_is_suggested():
    with pytest.raises(OptionError, match="did you mean directory;"):
        files.app_factory({}, directry="x")
    with pytest.raises(OptionError, match="did you mean health_path;"):
        operations.filter_app_factory(None, {}, health_pth="x")


def test_the_rate_of_slow_clients():
    assert Options.build(tmp_file_dir="x").min_rate == 500
    assert Options.build(tmp_file_dir="x", min_rate=0).min_rate == 0
    assert Options.build(tmp_file_dir="x", stall_timeout=0).min_rate == 0, "there is no time to measure it over"
