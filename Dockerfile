# MemScheduler in a container: the server, or with `worker` as its command a worker. See docs/docker.md.
FROM python:3.11.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
ARG EXTRAS=redis,postgres,openai,rabbitmq,documents,otel
RUN python -m venv /opt/memos
RUN /opt/memos/bin/pip install ".[${EXTRAS}]"
# The embedder's weights, checked against their hash: a container starts without a network.
RUN /opt/memos/bin/memos models install

FROM python:3.11.13-slim-bookworm AS server
RUN groupadd --system --gid 10001 memos \
    && useradd --system --uid 10001 --gid memos --home-dir /data --shell /usr/sbin/nologin memos \
    && install --directory --owner=memos --group=memos --mode=0700 /data
COPY --from=build /opt/memos /opt/memos
ENV PATH=/opt/memos/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    MEMOS_HOME=/data \
    MEMOS_API__HOST=0.0.0.0 \
    MEMOS_API__PORT=8000 \
    MEMOS_LOG__FORM=json
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['MEMOS_API__PORT'] + '/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["memos"]
CMD ["serve"]
