#!/bin/sh
# Makes ready what Airflow runs on; may run again at any time. The manifest is made here and not in
# the image: dbt parses again when the settings of the profile differ from those it parsed under.
set -eu
airflow db migrate
airflow users create --role Admin --username "$AIRFLOW_ADMIN_USER" --password "$AIRFLOW_ADMIN_PASSWORD" \
    --firstname Ada --lastname Min --email admin@localhost
cd "$VITRINA_DBT_DIR"
python -m ingestion init
# A day before all data: it makes the models that are missing, so that the docs know their columns' types.
VITRINA_DAYS=1970-01-01 dbt --quiet build --resource-type seed --resource-type model --target "$VITRINA_TARGET"
dbt --quiet docs generate --static --target "$VITRINA_TARGET"
