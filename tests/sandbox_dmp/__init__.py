"""The sandbox DMP is judged by messages written from scratch here, without the project's own DMP client."""
