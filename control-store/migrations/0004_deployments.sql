-- Deployments that can be steered, and lists page by page.

ALTER TABLE deployments ADD COLUMN concurrency INTEGER; -- tenants at the same time; NULL: as many as their servers take
ALTER TABLE deployments ADD COLUMN on_failure TEXT NOT NULL DEFAULT 'continue';
ALTER TABLE deployment_results ADD COLUMN started_at INTEGER;
CREATE INDEX deployment_results_by_status ON deployment_results (deployment, status, tenant);

DROP INDEX deployments_of_project;
CREATE INDEX deployments_of_project ON deployments (project, created_at, id);
CREATE INDEX tenants_in_use ON tenants (project, created_at, id) WHERE status <> 'deleted';
CREATE INDEX tenants_by_status ON tenants (project, status, created_at, id);
