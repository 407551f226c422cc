# MLflow's tracking server; its settings are mlflow/server.env, here as in `make ui`.
#
#     docker build -f docker/mlflow.Dockerfile .

FROM python:3.11-slim-bookworm AS environment
WORKDIR /opt/mlflow
RUN python -m venv /opt/venv
COPY bootstrap.lock docker/mlflow.lock ./
RUN /opt/venv/bin/python -m pip install --no-cache-dir --require-hashes -r bootstrap.lock \
    && /opt/venv/bin/python -m uv pip sync --no-cache --python /opt/venv/bin/python \
        --require-hashes --compile-bytecode mlflow.lock

FROM python:3.11-slim-bookworm
RUN useradd --uid 10002 --create-home mlflow \
    && install --directory --owner mlflow --mode 0700 /artifacts
COPY --from=environment /opt/venv /opt/venv
COPY mlflow /opt/nightjar/mlflow
WORKDIR /home/mlflow
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    NIGHTJAR_PYTHON=/opt/venv/bin/python \
    MLFLOW_HOST=0.0.0.0 \
    MLFLOW_ARTIFACTS_DESTINATION=/artifacts
USER 10002
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5000/health', timeout=4)"]
ENTRYPOINT ["/opt/nightjar/mlflow/serve"]
