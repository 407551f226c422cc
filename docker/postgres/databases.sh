#!/bin/sh
# One database and one role each for Airflow and MLflow; runs once, when the volume is empty.
set -eu
for name in airflow mlflow; do
    case "$name" in
        airflow) password=$AIRFLOW_DB_PASSWORD ;;
        mlflow) password=$MLFLOW_DB_PASSWORD ;;
    esac
    psql --username "$POSTGRES_USER" --dbname postgres --set ON_ERROR_STOP=1 \
        --set name="$name" --set password="$password" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
