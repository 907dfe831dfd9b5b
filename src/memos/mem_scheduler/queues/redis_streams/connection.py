"""The way to a Redis server: addresses, the client, and what its errors mean here.

Redis 7.0 or newer, or Valkey; standalone, behind Sentinel, with TLS and ACL users. The client repeats
nothing by itself: a claim or a submit whose reply was lost is repeated by the queue, which says so to the
server, so that nothing is done twice.

    redis://[user:password@]host:6379/0                      rediss:// with TLS
    unix:///run/redis.sock?db=0
    redis+sentinel://[user:password@]host:26379,host:26379/service/0    rediss+sentinel:// with TLS
    redis+cluster://[user:password@]host:6379,host:6379                 rediss+cluster:// with TLS

Several hosts without a word between are taken for a cluster's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit, urlunsplit

from memos.errors import ConfigError, QueueError, QueueFull, QueueUnavailable

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
    from redis.sentinel import Sentinel
except ImportError as error:  # pragma: no cover - the extra is there wherever the tests run
    raise ConfigError("the Redis queue needs the redis package: pip install 'memscheduler[redis]'") from error

VERSION_MIN = (7, 0)
_SENTINEL_PORT = 26_379
_START_S = 2.0  # for a connection and for an answer, at start
_SCHEMES = (
    *("redis", "rediss", "unix"),
    *("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
)
_PORT = 6379


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where the server is, and how long to wait for it. `ca_certs`: a file of certificates for TLS."""

    url: str = "redis://localhost:6379/0"
    ca_certs: str | None = None
    connect_timeout_s: float = 2.0
    timeout_s: float = 5.0

    @property
    def is_cluster(self) -> bool:
        """Whether it names nodes of a cluster."""
        parts = urlsplit(self.url)
        return parts.scheme.endswith("+cluster") or (parts.scheme != "unix" and _several(parts))

    @property
    def seeds(self) -> list[tuple[str, int]]:
        """The nodes of a cluster that it names. Raises ConfigError."""
        parts = urlsplit(self.url)
        hosts = parts.netloc.rpartition("@")[2]
        if not hosts:
            raise ConfigError(f"{self} names no node: redis+cluster://host:6379,host:6379")
        if parts.path.strip("/") not in ("", "0"):
            raise ConfigError(f"{self} names a database; a cluster has number 0 alone: leave it out")
        return [_host_and_port(one, _PORT) for one in hosts.split(",")]

    def __str__(self) -> str:
        """The URL without its password, for messages."""
        parts = urlsplit(self.url)
        if parts.password is None:
            return self.url
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))


def _several(parts: SplitResult) -> bool:
    return parts.scheme in ("redis", "rediss") and "," in parts.netloc.rpartition("@")[2]


def redis_url(
    *, host: str, port: int, db: int, username: str | None, password: str | None, tls: bool = False
) -> str:
    """The URL of separate parts."""
    secret = f":{quote(password, safe='')}" if password else ""
    login = f"{quote(username or '', safe='')}{secret}@" if username or password else ""
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{'rediss' if tls else 'redis'}://{login}{shown}:{port}/{db}"


def client_options(address: RedisAddress) -> dict[str, Any]:
    """What every client of the address is made with. Raises ConfigError for a URL that cannot work."""
    options: dict[str, Any] = {
        "decode_responses": True,
        "protocol": 2,
        "socket_timeout": address.timeout_s,
        "socket_connect_timeout": address.connect_timeout_s,
        "retry": Retry(NoBackoff(), 0),
    }
    if address.ca_certs:
        options["ssl_ca_certs"] = address.ca_certs
    scheme = urlsplit(address.url).scheme
    if scheme not in _SCHEMES:
        raise ConfigError(f"{address} is no Redis URL: it begins with one of {', '.join(_SCHEMES)}")
    if address.ca_certs and not scheme.startswith("rediss"):
        raise ConfigError(f"certificates are given, but {address} asks for no TLS: write rediss://")
    if scheme != "unix":
        options["socket_keepalive"] = True
    return options


def cluster_options(address: RedisAddress) -> dict[str, Any]:
    """`client_options` with the user of a cluster's URL, and TLS where it asks for that."""
    login = urlsplit(address.url).netloc.rpartition("@")[0]
    user, _, password = login.partition(":")
    options = client_options(address) | {
        "username": unquote(user) or None,
        "password": unquote(password) or None,
    }
    if urlsplit(address.url).scheme.startswith("rediss"):
        options["ssl"] = True
    return options


def connect(address: RedisAddress) -> redis.Redis:
    """A client for one server; nothing is sent yet. Raises ConfigError for a URL that cannot work."""
    options = client_options(address)
    scheme = urlsplit(address.url).scheme
    try:
        if scheme.endswith("+sentinel"):
            return _behind_sentinel(address, options)
        if scheme != "unix":
            int(urlsplit(address.url).path.strip("/") or 0)  # redis-py takes a word for no database
        return redis.Redis.from_url(address.url, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{address} is no Redis URL: {error}") from error


def _behind_sentinel(address: RedisAddress, options: dict[str, Any]) -> redis.Redis:
    parts = urlsplit(address.url)
    login, _, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    if not hosts or not service:
        raise ConfigError(f"{address} names no service: redis+sentinel://host:26379,host:26379/service/0")
    user, _, password = login.partition(":")
    if parts.scheme.startswith("rediss"):
        options["ssl"] = True
    asked = dict(parse_qsl(parts.query))
    watchers: dict[str, Any] = {name: value for name, value in options.items() if name != "decode_responses"}
    if "sentinel_password" in asked:
        watchers["password"] = asked["sentinel_password"]
    if "sentinel_username" in asked:
        watchers["username"] = asked["sentinel_username"]
    sentinel = Sentinel(
        [_host_and_port(one) for one in hosts.split(",")],
        sentinel_kwargs=watchers,
        username=unquote(user) or None,
        password=unquote(password) or None,
        db=int(db or 0),
        **options,
    )
    client: redis.Redis = sentinel.master_for(service)
    return client


def _host_and_port(text: str, port: int = _SENTINEL_PORT) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    try:
        if not parts.hostname:
            raise ValueError("it has no host")
        return parts.hostname, parts.port or port
    except ValueError as error:
        raise ConfigError(f"{text!r} is no host and port: {error}") from error


def check_server(address: RedisAddress) -> None:
    """See that a server that can hold a queue answers, in seconds. Raises QueueUnavailable, ConfigError."""
    patience = replace(
        address,
        timeout_s=min(_START_S, address.timeout_s),
        connect_timeout_s=min(_START_S, address.connect_timeout_s),
    )
    client = connect(patience)
    try:
        check_client(client, address)
    finally:
        client.close()


def check_client(client: redis.Redis, address: RedisAddress) -> None:
    """See that who answers can hold a queue. Raises QueueUnavailable, ConfigError."""
    try:
        client.ping()
        found: Any = client.info("server")
    except redis.exceptions.NoPermissionError:
        return  # an ACL user without INFO: the scripts will tell
    except (redis.exceptions.RedisError, OSError) as error:
        raise translated(error, address) from error
    version = str(found.get("redis_version", "7.0"))
    if tuple(int(part) for part in version.split(".")[:2]) < VERSION_MIN:
        raise ConfigError(
            f"the server at {address} is Redis {version}; the queue needs 7.0 or newer, or Valkey"
        )
    if (found.get("redis_mode") == "cluster") is not address.is_cluster:
        if address.is_cluster:
            raise ConfigError(
                f"{address} names a cluster, and who answers is a single server: write redis://"
            )
        raise ConfigError(f"the server at {address} is part of a cluster: write redis+cluster://host:port")


_REFUSED = ("WRONGPASS", "The user executing the script can't")


def is_passing(error: Exception) -> bool:
    """Whether the same command may work soon: the server is away, starting, or failing over."""
    if isinstance(error, redis.exceptions.AuthenticationError):
        return False
    if isinstance(
        error,
        redis.exceptions.ConnectionError
        | redis.exceptions.TimeoutError
        | redis.exceptions.ReadOnlyError
        | redis.exceptions.ClusterDownError  # MASTERDOWN too; these come without the word that they began with
        | OSError,
    ):
        return True
    if isinstance(error, redis.exceptions.ResponseError):
        return str(error).startswith(
            ("BUSY ", "LOADING", "NOREPLICAS", "MOVED", "ASK", "TRYAGAIN")
        ) or isinstance(error, redis.exceptions.AskError | redis.exceptions.TryAgainError)
    return False


def translated(error: Exception, address: RedisAddress) -> QueueError | ConfigError:
    """The error of ours that says what `error` means, and what to do."""
    if isinstance(error, redis.exceptions.OutOfMemoryError) or str(error).startswith("OOM"):
        return QueueFull(
            f"the Redis at {address} is out of memory: nothing was queued; what is queued can be run"
        )
    if isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.NoPermissionError):
        return ConfigError(f"the Redis at {address} refuses this user: {error}")
    if isinstance(error, redis.exceptions.ResponseError) and any(sign in str(error) for sign in _REFUSED):
        return ConfigError(f"the Redis at {address} refuses this user: {error}")
    if type(error) is redis.exceptions.ClusterDownError:  # not MASTERDOWN, which is one
        return QueueUnavailable(
            f"the cluster at {address} takes no commands: {error} (while a slot has no node, all are refused unless "
            "cluster-require-full-coverage is no)"
        )
    if is_passing(error):
        return QueueUnavailable(f"the Redis at {address} does not answer: {error}")
    if str(error).startswith("MISCONF"):
        return QueueUnavailable(f"the Redis at {address} cannot write its disk and takes no work: {error}")
    return QueueError(f"the Redis at {address} refused a command: {error}")
