-- Run once, when PostgreSQL prepares its data folder (docker-compose.yml mounts it into the image's initdb folder).
-- The role that dashboards read with: it can change nothing, and no query of it runs for long.
\set password `cat /run/msgtrace/reader_password`
CREATE ROLE reader LOGIN PASSWORD :'password';
GRANT pg_read_all_data TO reader;
ALTER ROLE reader SET statement_timeout = '30s';
