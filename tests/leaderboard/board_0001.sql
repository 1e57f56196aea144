BEGIN TRANSACTION;
CREATE TABLE leaderboard_rows (
	id VARCHAR(64) NOT NULL, 
	created VARCHAR(40) NOT NULL, 
	name TEXT NOT NULL, 
	spec TEXT NOT NULL, 
	split VARCHAR(16) NOT NULL, 
	fingerprint TEXT NOT NULL, 
	rendered BOOLEAN NOT NULL, 
	protocol TEXT NOT NULL, 
	num_queries INTEGER NOT NULL, 
	acc1 FLOAT NOT NULL, 
	acc5 FLOAT NOT NULL, 
	acc10 FLOAT NOT NULL, 
	acc15 FLOAT NOT NULL, 
	acc20 FLOAT NOT NULL, 
	acc10_low FLOAT NOT NULL, 
	acc10_high FLOAT NOT NULL, 
	contamination TEXT, 
	hedged BOOLEAN NOT NULL, 
	code_version TEXT NOT NULL, 
	artifacts_json TEXT NOT NULL, 
	hardware_json TEXT NOT NULL, 
	stage_seconds_json TEXT NOT NULL, 
	hit_ranks BLOB NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "leaderboard_rows" VALUES('e8e5ab5ff6e8f9e6e634357961beedd4b748416cdb9a08d8db45f0549ce4b697','2026-01-02T03:04:05+00:00','m4','m4 with WBF_5','validation','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',1,'official',40,0.1,0.25,0.45,0.6,0.825,3.07053078109049248922e-01,6.01709082010679519036e-01,NULL,0,'0.1.0+abc','["detect:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]','{"cpu": "some – ünï", "cores": 2, "gpu": null}','{"detect": 40.0, "embed": 20.25, "search": 0.1}',X'78DA1D8B090A802014449FA9850BFAD18CEE7F52A7180666356E100B95CEC58BE324D1C8786944AF34600CA21659FDE71F268B43DBAEAFFD706C452201B9');
INSERT INTO "leaderboard_rows" VALUES('518a40442183e8c4601a3efcf408b5a2b19b212422ce0158d25ab7362d193c89','2026-01-03T03:04:05.000001+00:00','m7','m7 with WBF_5','validation','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',1,'official',40,0.025,0.2,0.475,0.575,0.725,3.2935470112678905119e-01,6.25026378933075221766e-01,'m7 was trained on validation',0,'0.1.0+abc','["detect:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]','{"cpu": "some – ünï", "cores": 2, "gpu": null}','{"detect": 40.0, "embed": 20.25, "search": 0.1}',X'78DA1D8A090AC0201003A75A755B2A54BCFEFFD3A61BC801934D6591B9989C1CEA97A86D24274BBB009D26FF7AC46EB673131BFA178267E3034DB201BF');
INSERT INTO "leaderboard_rows" VALUES('50316ef8f7b31f83bdd8228ea92c238321214b0ed8b1bdde82852d14f55db9e1','2026-01-04T03:04:05.000002+00:00','<b>it''s</b> m1-16','<b>it''s</b> m1-16 with WBF_5','validation','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',1,'official',40,0.025,0.2,0.4,0.575,0.775,2.63483256842919288942e-01,0.554041063396538,NULL,1,'0.1.0+abc','["detect:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]','{"cpu": "some – ünï", "cores": 2, "gpu": null}','{}',X'78DA0D8C010A802000032F4B25341145ECFF2FF51863C7186B141EA68A5C646EA9AAAC7FBB09F26611F472FDDA6FBA19CDC4272737C39FCE014CBA01EF');
INSERT INTO "leaderboard_rows" VALUES('bcf6fea82204082774c4d3dbd54b61f1d557efe1e044964b6b1d8a07295517e6','2026-01-05T03:04:05.000003+00:00','m0','m0 with WBF_5','test','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',0,'official',40,0.025,0.275,0.425,0.525,0.8,2.85093925599503750234e-01,5.78049314580089235171e-01,NULL,0,'0.1.0+abc','["detect:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]','{"cpu": "some – ünï", "cores": 2, "gpu": null}','{"detect": 7}',X'78DA0D8B410E802010C40AAC89C4038B4AF0FF2FB5A7693A339B4972F171704A4925748BC1A6EB1E8A26E4262F13FB6A1F2ED2E7E0D6BEBAC60F526C01ED');
INSERT INTO "leaderboard_rows" VALUES('28204cad0a4e4cc8f6d41cee6708296b9b0b20a4fdda74318b9fb521e88bd731','2026-01-06T03:04:05.000004+00:00','strict','strict with WBF_5','validation','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',1,'strict',40,0.025,0.1,0.4,0.625,0.8,2.63483256842919288942e-01,0.554041063396538,NULL,0,'0.1.0+abc','["detect:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]','{"cpu": "some – ünï", "cores": 2, "gpu": null}','{"detect": 40.0, "embed": 20.25, "search": 0.1}',X'78DA1D8A410E802000C36A2401455050A3FF7FA995F4B0ACDB4263E3E66195C24166B775E23033709A495BF5FF566D89D70C5C82AF363E131F565E01FB');
CREATE TRIGGER leaderboard_no_update BEFORE UPDATE ON leaderboard_rows BEGIN SELECT RAISE(ABORT, 'leaderboard rows are appended, never edited'); END;
CREATE TRIGGER leaderboard_no_delete BEFORE DELETE ON leaderboard_rows BEGIN SELECT RAISE(ABORT, 'leaderboard rows are appended, never edited'); END;
COMMIT;
