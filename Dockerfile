# syntax=docker/dockerfile:1
# One image for both services: `start` (all in one), `collector`, `query`, and `msgtrace-admin` as entry point.

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY migrations ./migrations
COPY msgtrace ./msgtrace
RUN python -m venv /opt/msgtrace && /opt/msgtrace/bin/pip install --no-cache-dir .

FROM python:3.13-slim
RUN useradd --uid 10001 --no-create-home msgtrace && install -d -o msgtrace /data
COPY --from=build /opt/msgtrace /opt/msgtrace
ENV PATH=/opt/msgtrace/bin:$PATH \
    MSGTRACE_HOST=0.0.0.0 \
    MSGTRACE_DATABASE_URL=sqlite:////data/msgtrace.db
USER msgtrace
VOLUME /data
EXPOSE 4317 4318 4321
ENTRYPOINT ["msgtrace"]
CMD ["start"]
