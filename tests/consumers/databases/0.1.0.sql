BEGIN TRANSACTION;
CREATE TABLE alerts (
	alert_id TEXT NOT NULL, 
	camera TEXT NOT NULL, 
	boot BIGINT NOT NULL, 
	kind TEXT NOT NULL, 
	raised_ms BIGINT NOT NULL, 
	first BIGINT NOT NULL, 
	last BIGINT NOT NULL, 
	checked BIGINT NOT NULL, 
	flagged BIGINT NOT NULL, 
	mean_entropy_bits FLOAT NOT NULL, 
	threshold_bits FLOAT NOT NULL, 
	baseline_bits FLOAT NOT NULL, 
	evidence_octaves FLOAT NOT NULL, 
	message BLOB NOT NULL, 
	published BOOLEAN NOT NULL, 
	PRIMARY KEY (alert_id)
);
CREATE TABLE archived (
	kind TEXT NOT NULL, 
	camera TEXT NOT NULL, 
	boot BIGINT NOT NULL, 
	first BIGINT NOT NULL, 
	last BIGINT NOT NULL, 
	PRIMARY KEY (kind, camera, boot, first)
)
 WITHOUT ROWID

;
CREATE TABLE boots (
	camera TEXT NOT NULL, 
	boot BIGINT NOT NULL, 
	frames BIGINT NOT NULL, 
	duplicates BIGINT NOT NULL, 
	last_ms BIGINT NOT NULL, 
	PRIMARY KEY (camera, boot)
)
 WITHOUT ROWID

;
INSERT INTO "boots" VALUES('site/cam',77,12,0,2011);
CREATE TABLE camera_snapshots (
	camera TEXT NOT NULL, 
	heard_ms BIGINT NOT NULL, 
	state TEXT NOT NULL, 
	PRIMARY KEY (camera)
)
 WITHOUT ROWID

;
CREATE TABLE camera_states (
	camera TEXT NOT NULL, 
	state TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	since_ms BIGINT NOT NULL, 
	patience_s FLOAT NOT NULL, 
	saved_ms BIGINT NOT NULL, 
	PRIMARY KEY (camera)
)
 WITHOUT ROWID

;
CREATE TABLE cameras (
	camera TEXT NOT NULL, 
	state BIGINT NOT NULL, 
	state_ms BIGINT NOT NULL, 
	detail TEXT NOT NULL, 
	status BLOB NOT NULL, 
	meta BLOB NOT NULL, 
	seen_ms BIGINT NOT NULL, 
	PRIMARY KEY (camera)
)
 WITHOUT ROWID

;
CREATE TABLE comparisons (
	camera TEXT NOT NULL, 
	boot BIGINT NOT NULL, 
	seq BIGINT NOT NULL, 
	begun_ms BIGINT NOT NULL, 
	digest TEXT NOT NULL, 
	slot TEXT NOT NULL, 
	captured_ms BIGINT NOT NULL, 
	saved_ms BIGINT NOT NULL, 
	live_class TEXT NOT NULL, 
	live_confidence FLOAT NOT NULL, 
	candidate_class TEXT NOT NULL, 
	candidate_confidence FLOAT NOT NULL, 
	differs BOOLEAN NOT NULL, 
	error TEXT NOT NULL, 
	picture BLOB NOT NULL, 
	PRIMARY KEY (camera, boot, seq, begun_ms)
);
CREATE TABLE dead_letters (
	topic TEXT NOT NULL, 
	partition BIGINT NOT NULL, 
	"offset" BIGINT NOT NULL, 
	stage TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	error TEXT NOT NULL, 
	camera TEXT NOT NULL, 
	verified BOOLEAN NOT NULL, 
	boot BIGINT NOT NULL, 
	seq BIGINT NOT NULL, 
	origin TEXT NOT NULL, 
	payload BLOB NOT NULL, 
	payload_bytes BIGINT NOT NULL, 
	stored_bytes BIGINT NOT NULL, 
	at_ms BIGINT NOT NULL, 
	recorded_ms BIGINT NOT NULL, 
	PRIMARY KEY (topic, partition, "offset")
);
CREATE TABLE evidence (
	camera TEXT NOT NULL, 
	boot BIGINT NOT NULL, 
	partition BIGINT NOT NULL, 
	following BIGINT NOT NULL, 
	waiting BLOB NOT NULL, 
	track BLOB NOT NULL, 
	updated_ms BIGINT NOT NULL, 
	PRIMARY KEY (camera, boot)
);
CREATE TABLE frames (
	camera TEXT NOT NULL, 
	boot BIGINT NOT NULL, 
	seq BIGINT NOT NULL, 
	captured_ms BIGINT NOT NULL, 
	processed_ms BIGINT NOT NULL, 
	recorded_ms BIGINT NOT NULL, 
	class_id BIGINT NOT NULL, 
	class_name TEXT NOT NULL, 
	confidence FLOAT NOT NULL, 
	model_id TEXT NOT NULL, 
	policy TEXT NOT NULL, 
	truth BIGINT NOT NULL, 
	width BIGINT NOT NULL, 
	height BIGINT NOT NULL, 
	channels BIGINT NOT NULL, 
	dropped_per_block BIGINT NOT NULL, 
	whole BOOLEAN NOT NULL, 
	profile BIGINT NOT NULL, 
	frame_bytes BIGINT NOT NULL, 
	pixel_bytes BIGINT NOT NULL, 
	strip BIGINT NOT NULL, 
	entropy_bits FLOAT NOT NULL, 
	threshold_bits FLOAT NOT NULL, 
	flagged BOOLEAN NOT NULL, 
	class_group TEXT NOT NULL, 
	best TEXT NOT NULL, 
	certified_patch BIGINT NOT NULL, 
	certified BOOLEAN NOT NULL, 
	PRIMARY KEY (camera, boot, seq)
);
INSERT INTO "frames" VALUES('site/cam',77,0,1000,0,2000,0,'hazard',0.0,'scene@1','',0,0,0,0,0,0,0,0,0,0,0.0,0.0,0,'','',0,0);
INSERT INTO "frames" VALUES('site/cam',77,1,1001,0,2001,0,'hazard',0.0,'scene@1','',0,0,0,0,0,0,0,0,0,0,0.0,0.0,0,'','',0,0);
INSERT INTO "frames" VALUES('site/cam',77,2,1002,0,2002,0,'hazard',0.0,'scene@1','',0,0,0,0,0,0,0,0,0,0,0.0,0.0,0,'','',0,0);
INSERT INTO "frames" VALUES('site/cam',77,3,1003,0,2003,0,'hazard',0.0,'scene@1','',0,0,0,0,0,0,0,0,0,0,0.0,0.0,0,'','',0,0);
INSERT INTO "frames" VALUES('site/cam',77,4,1004,0,2004,0,'hazard',0.0,'scene@1','',0,0,0,0,0,0,0,0,0,0,0.0,0.0,0,'','',0,0);
INSERT INTO "frames" VALUES('site/cam',77,5,1005,0,2005,0,'hazard',0.0,'scene@1','',0,0,0,0,0,0,0,0,0,0,0.0,0.0,0,'','',0,0);
INSERT INTO "frames" VALUES('site/cam',77,6,1006,0,2006,0,'hazard',0.0,'scene@1','',0,0,0,0,0,0,0,0,0,0,0.0,0.0,0,'','',0,0);
INSERT INTO "frames" VALUES('site/cam',77,7,1007,0,2007,0,'hazard',0.0,'scene@1','',0,0,0,0,0,0,0,0,0,0,0.0,0.0,0,'','',0,0);
INSERT INTO "frames" VALUES('site/cam',77,8,1008,0,2008,0,'hazard',0.0,'scene@1','',0,0,0,0,0,0,0,0,0,0,0.0,0.0,0,'','',0,0);
INSERT INTO "frames" VALUES('site/cam',77,9,1009,0,2009,0,'hazard',0.0,'scene@1','',0,0,0,0,0,0,0,0,0,0,0.0,0.0,0,'','',0,0);
INSERT INTO "frames" VALUES('site/cam',77,10,1010,0,2010,0,'hazard',0.0,'scene@1','',0,0,0,0,0,0,0,0,0,0,0.0,0.0,0,'','',0,0);
INSERT INTO "frames" VALUES('site/cam',77,11,1011,0,2011,0,'hazard',0.0,'scene@1','',0,0,0,0,0,0,0,0,0,0,0.0,0.0,0,'','',0,0);
CREATE TABLE history (
	minute_ms BIGINT NOT NULL, 
	frames BIGINT NOT NULL, 
	frame_bytes BIGINT NOT NULL, 
	raw_bytes BIGINT NOT NULL, 
	late_ms BIGINT NOT NULL, 
	slowest_ms BIGINT NOT NULL, 
	judged BIGINT NOT NULL, 
	judged_correct BIGINT NOT NULL, 
	attacked BIGINT NOT NULL, 
	attacked_correct BIGINT NOT NULL, 
	checked BIGINT NOT NULL, 
	flagged BIGINT NOT NULL, 
	strip_shed BIGINT NOT NULL, 
	PRIMARY KEY (minute_ms)
);
CREATE TABLE ledgers (
	camera TEXT NOT NULL, 
	boot BIGINT NOT NULL, 
	revision BIGINT NOT NULL, 
	started_ms BIGINT NOT NULL, 
	first BIGINT NOT NULL, 
	next BIGINT NOT NULL, 
	closed BOOLEAN NOT NULL, 
	frames_skipped BIGINT NOT NULL, 
	frames_resent BIGINT NOT NULL, 
	bytes_resent BIGINT NOT NULL, 
	written_ms BIGINT NOT NULL, 
	confirmed_to BIGINT NOT NULL, 
	message BLOB NOT NULL, 
	taken_ms BIGINT NOT NULL, 
	PRIMARY KEY (camera, boot)
)
 WITHOUT ROWID

;
CREATE TABLE live_audit (
	only BIGINT NOT NULL, 
	document TEXT NOT NULL, 
	PRIMARY KEY (only)
);
CREATE TABLE mutes (
	subject TEXT NOT NULL, 
	until_ms BIGINT NOT NULL, 
	reason TEXT NOT NULL, 
	who TEXT NOT NULL, 
	at_ms BIGINT NOT NULL, 
	PRIMARY KEY (subject)
);
CREATE TABLE offsets (
	topic TEXT NOT NULL, 
	partition BIGINT NOT NULL, 
	next BIGINT NOT NULL, 
	epoch BIGINT NOT NULL, 
	PRIMARY KEY (topic, partition)
)
 WITHOUT ROWID

;
INSERT INTO "offsets" VALUES('pointillist.verdicts.v1',0,12,1);
CREATE TABLE probing (
	camera TEXT NOT NULL, 
	own_share FLOAT NOT NULL, 
	commanded_share FLOAT NOT NULL, 
	PRIMARY KEY (camera)
);
CREATE TABLE quarantine (
	name TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	at_ms BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE rollouts (
	begun_ms BIGINT NOT NULL, 
	digest TEXT NOT NULL, 
	model_id TEXT NOT NULL, 
	slot TEXT NOT NULL, 
	outcome TEXT NOT NULL, 
	at_ms BIGINT NOT NULL, 
	report TEXT NOT NULL, 
	PRIMARY KEY (begun_ms, digest)
);
CREATE TABLE spans (
	from_ms BIGINT NOT NULL, 
	to_ms BIGINT NOT NULL, 
	frames BIGINT NOT NULL, 
	bytes BIGINT NOT NULL, 
	PRIMARY KEY (from_ms)
);
CREATE TABLE summed_ledgers (
	camera TEXT NOT NULL, 
	ledgers BIGINT NOT NULL, 
	shed BIGINT NOT NULL, 
	pending BIGINT NOT NULL, 
	lost BIGINT NOT NULL, 
	frames_skipped BIGINT NOT NULL, 
	frames_resent BIGINT NOT NULL, 
	bytes_resent BIGINT NOT NULL, 
	started_ms BIGINT NOT NULL, 
	PRIMARY KEY (camera)
)
 WITHOUT ROWID

;
CREATE TABLE tallies (
	name TEXT NOT NULL, 
	value BIGINT NOT NULL, 
	PRIMARY KEY (name)
)
 WITHOUT ROWID

;
INSERT INTO "tallies" VALUES('schema_version',3);
CREATE INDEX frames_by_age ON frames (recorded_ms);
CREATE INDEX ledgers_by_age ON ledgers (taken_ms);
CREATE INDEX dead_letters_verified ON dead_letters (camera, boot) WHERE verified = 1;
CREATE INDEX dead_letters_by_kind ON dead_letters (verified, recorded_ms);
CREATE INDEX dead_letters_by_age ON dead_letters (recorded_ms);
CREATE INDEX evidence_by_age ON evidence (updated_ms);
CREATE INDEX evidence_waiting ON evidence (camera, boot, following) WHERE waiting != '';
CREATE INDEX alerts_by_age ON alerts (raised_ms);
CREATE INDEX cameras_by_age ON cameras (seen_ms);
CREATE INDEX camera_states_by_age ON camera_states (saved_ms);
CREATE INDEX camera_snapshots_by_age ON camera_snapshots (heard_ms);
CREATE INDEX comparisons_by_age ON comparisons (saved_ms);
CREATE INDEX quarantine_by_age ON quarantine (at_ms, bytes);
COMMIT;
