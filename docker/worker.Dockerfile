# The worker and its trainer: for NVIDIA accelerators, or with ACCELERATOR=cpu for a machine without one.
#
#     docker build -f docker/worker.Dockerfile -t condenser-worker:0.1.0 .
#     docker build -f docker/worker.Dockerfile -t condenser-worker:0.1.0-cpu \
#         --build-arg ACCELERATOR=cpu --build-arg TORCH_INDEX_URL=ADDRESS .
#
# What pip's usual index calls torch for Linux brings NVIDIA's libraries, at the releases that it pins itself; the
# driver comes from the host, by the NVIDIA Container Toolkit. PyTorch publishes builds without them on an index
# of its own (pytorch.org, "Get started", platform CPU, says its address). Without TORCH_INDEX_URL a CPU image works
# too, and is several gigabytes larger.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.16-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
ARG ACCELERATOR=cuda
ARG TORCH_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# The static build of tini needs nothing of the system it is copied to.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini=0.19.0-* \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY pyproject.toml requirements.lock docker/image_requirements.py docker/check_installed.py \
     docker/check_accelerator.py ./
# torch first and in a layer of its own: it is most of the image, and changes least.
RUN python -m pip install --constraint requirements.lock ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch \
    && python check_accelerator.py "$ACCELERATOR"
RUN python image_requirements.py worker > requirements.txt \
    && python -m pip install --constraint requirements.lock --requirement requirements.txt \
    && python check_installed.py requirements.lock worker \
    && python check_accelerator.py "$ACCELERATOR" \
    && python -m pip uninstall --yes pip setuptools
COPY core /app/core
COPY store /app/store
COPY worker /app/worker
COPY teachers /app/teachers
COPY LICENSE /app/
COPY docker/record_release.py /build/
WORKDIR /app
# Whoever runs the image may not write there: the bytecode is made here, and is the same in every build.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app \
    && python /build/record_release.py /build/pyproject.toml \
    && python -c "import core.draw, core.run, worker.announcer, worker.supervisor"

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Condenser worker" \
      org.opencontainers.image.description="Distillation as a service for text-to-image diffusion models: the worker" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=builder /usr/bin/tini-static /usr/local/bin/tini
COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /app /app
# The named volume that is mounted here gets this owner.
RUN install -d -o 10001 -g 10001 /data && install -d /models
# Caches of libraries lie in the volume, beside the worker's own: they are large, and worth keeping.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    DATA_DIR=/data \
    TEACHERS_DIRS=/models \
    HF_HOME=/data/huggingface \
    XDG_CACHE_HOME=/data/library-cache \
    WORKER_METRICS_HOST=0.0.0.0 \
    WORKER_METRICS_PORT=9100 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /app
USER 10001:10001
VOLUME ["/data"]
EXPOSE 9100
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s --retries=3 \
    CMD ["python", "-m", "worker.health"]
ENTRYPOINT ["tini", "--"]
# A worker serves the queue of WORKER_QUEUE; each kind of worker is a service of its own.
CMD ["python", "-m", "celery", "-A", "worker.app", "--quiet", "worker", "--loglevel", "INFO", \
     "--without-gossip", "--without-mingle"]
