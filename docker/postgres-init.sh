#!/bin/bash
# Run once by the image, on an empty data directory: a role and a database each for the warehouse, for
# Airflow's metadata, and for the telemetry source, which only the sandbox writes.
set -euo pipefail
make_database() {
    psql --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
        --set name="$1" --set password="$2" <<'SQL'
create role :"name" login password :'password';
create database :"name" owner :"name";
SQL
}
make_database vitrina "$WAREHOUSE_PASSWORD"
make_database airflow "$AIRFLOW_DB_PASSWORD"
make_database telemetry "$TELEMETRY_DB_PASSWORD"
