# Airflow and the pipeline in one image: a task runs the code it schedules.
#
#     docker build -f docker/pipeline.Dockerfile .                      for the CPU
#     docker build -f docker/pipeline.Dockerfile --build-arg LOCK=gpu . with CUDA 13's libraries

FROM python:3.11-slim-bookworm AS environment
ARG LOCK=pipeline
WORKDIR /opt/nightjar
RUN python -m venv /opt/venv
COPY bootstrap.lock docker/${LOCK}.lock ./
RUN /opt/venv/bin/python -m pip install --no-cache-dir --require-hashes -r bootstrap.lock \
    && /opt/venv/bin/python -m uv pip sync --no-cache --python /opt/venv/bin/python \
        --require-hashes --compile-bytecode "${LOCK}.lock"

FROM python:3.11-slim-bookworm
# implicit is linked against the GNU OpenMP runtime and ships none.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home nightjar \
    && install --directory --owner nightjar --mode 0700 /workspace
COPY --from=environment /opt/venv /opt/venv
WORKDIR /opt/nightjar
COPY dags dags
COPY pipeline pipeline
COPY docker/entrypoint.py docker/nightjar docker/
# The last folder exists in the gpu image alone: CUDA's libraries, which implicit leaves to the loader.
ENV PATH=/opt/nightjar/docker:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/nightjar \
    PYTHONUNBUFFERED=1 \
    NIGHTJAR_HOME=/workspace \
    LD_LIBRARY_PATH=/opt/venv/lib/python3.11/site-packages/nvidia/cu13/lib
USER 10001
ENTRYPOINT ["python", "/opt/nightjar/docker/entrypoint.py"]
CMD ["nightjar", "--help"]
