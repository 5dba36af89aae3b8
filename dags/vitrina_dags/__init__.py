"""What the DAGs share. Nothing here reads a database, a Connection or a Variable while a DAG is parsed."""
