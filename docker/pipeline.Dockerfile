# Airflow and the pipeline in one image: a task runs the code it schedules.
#
#     docker build -f docker/pipeline.Dockerfile .               for the CPU
#     docker build -f docker/pipeline.Dockerfile --target gpu .  with CUDA 13's libraries and the tests
#
# The digest is that of python:3.11.16-slim-bookworm, all platforms, in October 2026
# (docker/README.md). A newer one: docker buildx imagetools inspect python:3.11-slim-bookworm

FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS environment
WORKDIR /opt/nightjar
RUN python -m venv /opt/bootstrap && python -m venv --without-pip /opt/venv
COPY bootstrap.lock docker/pipeline.lock ./
# pip and uv stay behind in this stage.
RUN /opt/bootstrap/bin/python -m pip install --no-cache-dir --require-hashes -r bootstrap.lock \
    && /opt/bootstrap/bin/python -m uv pip sync --no-cache --python /opt/venv/bin/python \
        --require-hashes --compile-bytecode pipeline.lock
# LightFM has no wheel for Linux: it is built here, so that no image holds a compiler.
COPY lightfm.lock ./
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && /opt/bootstrap/bin/python -m uv pip install --no-cache --python /opt/venv/bin/python \
        --no-deps --require-hashes --build-constraints lightfm.lock -r lightfm.lock \
    && /opt/bootstrap/bin/python -m uv pip uninstall --python /opt/venv/bin/python setuptools

FROM environment AS gpu-environment
COPY gpu.lock ./
RUN /opt/bootstrap/bin/python -m uv pip install --no-cache --python /opt/venv/bin/python \
        --require-hashes --compile-bytecode -r gpu.lock

FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS base
# implicit is linked against the GNU OpenMP runtime and ships none. Nothing installs packages here,
# so the base image's pip and setuptools, which no lock names, go.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && python -m pip uninstall --yes --root-user-action=ignore pip setuptools wheel \
    && rm -rf /usr/local/lib/python3.11/ensurepip \
    && useradd --uid 10001 --create-home nightjar \
    && install --directory --owner nightjar --mode 0700 /workspace
WORKDIR /opt/nightjar
COPY dags dags
COPY pipeline pipeline
COPY docker/entrypoint.py docker/nightjar docker/
# Compose mounts the image read-only: the caches of numba and matplotlib are made in /tmp.
ENV PATH=/opt/nightjar/docker:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/nightjar \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    NIGHTJAR_HOME=/workspace
USER 10001
ENTRYPOINT ["python", "/opt/nightjar/docker/entrypoint.py"]
CMD ["nightjar", "--help"]

FROM base AS gpu
COPY --from=gpu-environment /opt/venv /opt/venv
# For the tests of the GPU: python -m pytest -p no:cacheprovider -m gpu tests/unit/models/test_gpu.py
COPY pyproject.toml ./
COPY tests tests

FROM base AS cpu
COPY --from=environment /opt/venv /opt/venv
