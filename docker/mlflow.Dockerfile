# MLflow's tracking server; its settings are mlflow/server.env, here as in `make ui`.
#
#     docker build -f docker/mlflow.Dockerfile .
#
# The digest is that of python:3.11.16-slim-bookworm, all platforms, in October 2026
# (docker/README.md). A newer one: docker buildx imagetools inspect python:3.11-slim-bookworm

FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS environment
WORKDIR /opt/mlflow
RUN python -m venv /opt/bootstrap && python -m venv --without-pip /opt/venv
COPY bootstrap.lock docker/mlflow.lock ./
# pip and uv stay behind in this stage.
RUN /opt/bootstrap/bin/python -m pip install --no-cache-dir --require-hashes -r bootstrap.lock \
    && /opt/bootstrap/bin/python -m uv pip sync --no-cache --python /opt/venv/bin/python \
        --require-hashes --compile-bytecode mlflow.lock

FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
# Nothing installs packages here: the base image's pip and setuptools, which no lock names, go.
RUN python -m pip uninstall --yes --root-user-action=ignore pip setuptools wheel \
    && rm -rf /usr/local/lib/python3.11/ensurepip \
    && useradd --uid 10002 --create-home mlflow \
    && install --directory --owner mlflow --mode 0700 /artifacts
COPY --from=environment /opt/venv /opt/venv
COPY mlflow /opt/nightjar/mlflow
WORKDIR /home/mlflow
# Compose mounts the image read-only.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    NIGHTJAR_PYTHON=/opt/venv/bin/python \
    MLFLOW_HOST=0.0.0.0 \
    MLFLOW_ARTIFACTS_DESTINATION=/artifacts
USER 10002
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5000/health', timeout=4)"]
ENTRYPOINT ["/opt/nightjar/mlflow/serve"]
