"""Landing: one small task a source takes raw data to the warehouse, in bulk, and says so in a ledger.

Knows neither dbt nor Airflow. `python -m ingestion --help` lists the commands.
"""
