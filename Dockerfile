# syntax=docker/dockerfile:1
# One image for both services: `start` (all in one, the default), `collector`, `query`. msgtrace-admin is in it too.
# Packages come from deploy/lock, each checked against its hash. `make rehearse` runs these steps without an engine.
# For a build that repeats to the byte, give the base by digest: --build-arg PYTHON=3.13-slim-trixie@sha256:…

ARG PYTHON=3.13-slim-trixie

# The native decoder. Rust is the distribution's, and stays in this stage.
FROM python:${PYTHON} AS native
WORKDIR /src
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends cargo && \
    rm -rf /var/lib/apt/lists/*
COPY deploy/lock deploy/lock
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/build && \
    /opt/build/bin/pip install --require-hashes --requirement deploy/lock/native.txt
COPY native native
RUN --mount=type=cache,target=/root/.cargo/registry \
    /opt/build/bin/maturin build --release --locked --manifest-path native/Cargo.toml --out dist

FROM python:${PYTHON} AS build
WORKDIR /src
COPY deploy/lock deploy/lock
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/build && \
    /opt/build/bin/pip install --require-hashes --requirement deploy/lock/build.txt && \
    python -m venv --without-pip /opt/msgtrace && \
    /opt/build/bin/pip --python /opt/msgtrace/bin/python install --only-binary :all: \
        --require-hashes --requirement deploy/lock/runtime.txt
# What changes often comes last, so that the layers above stay.
COPY --from=native /src/dist native
RUN /opt/build/bin/pip --python /opt/msgtrace/bin/python install --no-index --no-deps native/*.whl
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY msgtrace msgtrace
RUN /opt/build/bin/hatchling build --target wheel --directory dist && \
    /opt/build/bin/pip --python /opt/msgtrace/bin/python install --no-index --no-deps dist/*.whl

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="msgtrace" \
      org.opencontainers.image.description="An OpenTelemetry trace store: OTLP in, SQL tables underneath." \
      org.opencontainers.image.licenses="Apache-2.0"
# pip and its copy in ensurepip are of no use where nothing can be written.
RUN groupadd --gid 10001 msgtrace && \
    useradd --uid 10001 --gid msgtrace --home-dir /var/lib/msgtrace --no-create-home --no-log-init \
        --shell /usr/sbin/nologin msgtrace && \
    install --directory --owner msgtrace --group msgtrace --mode 0700 /var/lib/msgtrace /var/lib/msgtrace/spill && \
    rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/site-packages/pip* /usr/local/lib/python3.*/ensurepip
COPY --from=build /opt/msgtrace /opt/msgtrace
# By XDG_DATA_HOME the SQLite file and the spill are in /var/lib/msgtrace unless told otherwise.
ENV PATH=/opt/msgtrace/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_DATA_HOME=/var/lib \
    MSGTRACE_HOST=0.0.0.0
USER 10001:10001
WORKDIR /var/lib/msgtrace
EXPOSE 4317 4318 4321
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["msgtrace", "ready"]
ENTRYPOINT ["msgtrace"]
CMD ["start"]
