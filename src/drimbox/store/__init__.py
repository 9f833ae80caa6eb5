"""PostgreSQL, the one store: the server (embedded or the site's own), the pool, the migrations, the durable jobs."""
