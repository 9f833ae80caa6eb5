"""The consumer's pages and addresses: requests in, French pages and DICOMweb answers out. Decides nothing itself."""
