-- Run once, by PostgreSQL on its empty volume, beside the database `sweeper` of the catalog and the search.
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
