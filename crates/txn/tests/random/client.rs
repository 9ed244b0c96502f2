//! Clients that read, write, give up, repeat and ask.

use super::*;

impl Sim {
    pub(crate) fn begin(&mut self, client: usize) {
        self.attempts += 1;
        let millis = u128::from((EPOCH + self.now.0) / MS);
        let attempt = AttemptId((millis << 80) | self.attempts);
        let priority = self.clients[client].age.unwrap_or(Priority {
            start: Timestamp(EPOCH + self.now.0),
            first: attempt,
        });
        self.clients[client].age = Some(priority);
        let kind = match self.rng.below(10) {
            0..=5 => Kind::Write,
            6 => Kind::Blind,
            7 | 8 => Kind::ReadOnly,
            _ => Kind::Latest,
        };
        let mut plan = Vec::new();
        let mut writes = BTreeMap::new();
        let value = Value::copy_from_slice(&attempt.0.to_be_bytes());
        let only = self.rng.below(3) as usize;
        for _ in 0..1 + self.rng.below(3) {
            let shard = match kind {
                Kind::Latest => only,
                _ => self.rng.below(3) as usize,
            };
            let key = key(shard, self.rng.below(self.hot));
            let written = self.rng.percent(60);
            let value = (!self.rng.percent(5)).then(|| value.clone());
            if matches!(kind, Kind::Write) && written || kind == Kind::Blind {
                writes.insert(key.clone(), value);
            }
            if kind != Kind::Blind {
                let mode = if written && self.rng.percent(50) && kind == Kind::Write {
                    LockMode::Exclusive
                } else {
                    LockMode::Shared
                };
                if self.rng.percent(20) {
                    plan.push(Step::Scan(shard));
                } else {
                    plan.push(Step::Get(key, mode));
                }
            }
        }
        if kind == Kind::Write && writes.is_empty() {
            writes.insert(key(only, self.rng.below(self.hot)), Some(value));
        }
        self.clients[client].txn = Some(Txn {
            attempt,
            priority,
            kind,
            plan,
            at: 0,
            writes,
            reads: Vec::new(),
            sessions: BTreeMap::new(),
            terms: BTreeMap::new(),
            coordinator: 0,
            committing: false,
            valid: BTreeSet::new(),
            outstanding: BTreeMap::new(),
            resend: Mono(0),
            sent_commit: false,
            started: self.clock,
        });
        self.go_on(client);
    }

    /// Sends what the transaction needs next.
    pub(crate) fn go_on(&mut self, client: usize) {
        let Some(mut txn) = self.clients[client].txn.clone() else {
            return;
        };
        if let Some(step) = txn.plan.get(txn.at).cloned() {
            let (shard, keys, scan, mode) = match step {
                Step::Get(key, mode) => (shard_of(&key), vec![key], None, mode),
                Step::Scan(shard) => {
                    let span = Span::of_prefix(&[b'a' + shard as u8]);
                    let (limit, reverse) = match self.rng.below(3) {
                        0 => (100, false),
                        1 => (100, true),
                        _ => (2, self.rng.percent(50)),
                    };
                    let scan = ScanRange {
                        span,
                        limit,
                        reverse,
                    };
                    (shard, Vec::new(), Some(scan), LockMode::Shared)
                }
            };
            let request = if txn.kind == Kind::Latest {
                // All keys at once, at one moment.
                let all = (0..KEYS).map(|number| key(shard, number));
                let keys = all.filter(|_| scan.is_none()).collect();
                Request::Latest { keys, scan }
            } else {
                Request::LockedRead {
                    attempt: txn.attempt,
                    priority: txn.priority,
                    client: ClientId(client as u64),
                    session: txn.sessions.get(&shard).copied(),
                    keys,
                    scan,
                    mode,
                }
            };
            return self.send(client, shard, request);
        }
        match txn.kind {
            Kind::Latest => self.finish(client, End::Committed(None)),
            Kind::ReadOnly => {
                let keep = txn.sessions.len() > 1;
                for (shard, session) in txn.sessions.clone() {
                    let request = Request::Validate {
                        attempt: txn.attempt,
                        session,
                        keep,
                    };
                    self.send(client, shard, request);
                }
            }
            Kind::Write | Kind::Blind => {
                if !txn.committing {
                    txn.committing = true;
                    for shard in txn.writes.keys().map(|k| shard_of(k)) {
                        txn.terms
                            .entry(shard)
                            .or_insert_with(|| self.shards[shard].term());
                    }
                    let nth = self.rng.below(txn.terms.len() as u64) as usize;
                    txn.coordinator = *txn.terms.keys().nth(nth).unwrap();
                    self.clients[client].txn = Some(txn);
                }
                self.commit(client);
            }
        }
    }

    pub(crate) fn participants(txn: &Txn) -> Vec<Participant> {
        let mut list: Vec<Participant> = txn
            .terms
            .iter()
            .map(|(shard, term)| Participant {
                anchor: anchor(txn, *shard),
                shard: GroupId(*shard as u64 + 1),
                term: *term,
            })
            .collect();
        list.sort();
        list
    }

    pub(crate) fn commit(&mut self, client: usize) {
        let Some(txn) = self.clients[client].txn.clone() else {
            return;
        };
        let again = txn.sent_commit;
        if again && self.rng.percent(60) {
            let request = Request::Status {
                attempt: txn.attempt,
                anchor: anchor(&txn, txn.coordinator),
                term: txn.terms[&txn.coordinator],
            };
            return self.send(client, txn.coordinator, request);
        }
        if let Some(txn) = &mut self.clients[client].txn {
            txn.sent_commit = true;
        }
        let participants = Self::participants(&txn);
        let index = |shard: usize| {
            participants
                .iter()
                .position(|p| p.shard.0 == shard as u64 + 1)
                .unwrap()
        };
        let coordinator = index(txn.coordinator);
        for shard in txn.terms.keys().copied() {
            let (participants, here, coordinator) =
                CommitRequest::participants_for(&participants, index(shard), coordinator);
            let request = Request::Commit(Box::new(CommitRequest {
                attempt: txn.attempt,
                priority: txn.priority,
                client: ClientId(client as u64),
                session: txn.sessions.get(&shard).map(|s| s.1),
                writes: txn
                    .writes
                    .iter()
                    .filter(|(k, _)| shard_of(k) == shard)
                    .map(|(key, value)| Write {
                        key: key.clone(),
                        value: value.clone(),
                    })
                    .collect(),
                reads: Vec::new(),
                participants,
                here,
                coordinator,
                timeout_millis: 2_000,
                snapshot: None,
            }));
            self.send(client, shard, request);
        }
    }

    pub(crate) fn finish(&mut self, client: usize, end: End) {
        let Some(txn) = self.clients[client].txn.take() else {
            return;
        };
        if end != End::Aborted {
            self.clients[client].age = None;
        }
        if txn.kind != Kind::Latest && (end == End::Aborted || txn.kind == Kind::ReadOnly) {
            let touched = txn.plan.iter().map(|step| match step {
                Step::Get(key, _) => shard_of(key),
                Step::Scan(shard) => *shard,
            });
            for shard in touched {
                self.clients[client].releases.insert((txn.attempt, shard));
            }
            self.release(client);
        }
        let ended = self.clock;
        self.history.push(Done { txn, end, ended });
    }

    pub(crate) fn release(&mut self, client: usize) {
        for (attempt, shard) in self.clients[client].releases.clone() {
            let number = self.clients[client].requests;
            self.clients[client]
                .released
                .insert(number, (attempt, shard));
            let request = Request::Release {
                attempt,
                session: None,
            };
            self.send(client, shard, request);
        }
    }

    pub(crate) fn answered(&mut self, to: Caller, response: Response) {
        let client = to.connection as usize;
        if response == Response::Released
            && let Some(which) = self.clients[client].released.remove(&to.request)
        {
            self.clients[client].releases.remove(&which);
            return;
        }
        let Some(txn) = &mut self.clients[client].txn else {
            return;
        };
        let Some(shard) = txn.outstanding.remove(&to.request) else {
            return;
        };
        let from_coordinator = txn.committing && shard == txn.coordinator;
        match response {
            Response::Read {
                term,
                session,
                versions,
                rows,
                more,
                ..
            } => self.read_done(client, shard, term, session, versions, rows, more),
            Response::Valid => {
                txn.valid.insert(shard);
                if txn.valid.len() == txn.sessions.len() {
                    self.finish(client, End::Committed(None));
                }
            }
            Response::Outcome { outcome, .. } if from_coordinator => match outcome {
                Outcome::Committed(at) => self.finish(client, End::Committed(Some(at))),
                Outcome::Aborted(_) => self.finish(client, End::Aborted),
            },
            Response::Expired => self.finish(client, End::Unknown),
            Response::Refused(refusal) => {
                let last = match refusal {
                    Refusal::Aborted(_) => true,
                    Refusal::WrongTerm { last_word, .. } => last_word,
                    Refusal::Invalid(why) => panic!("invalid: {why}"),
                    _ => false,
                };
                if last && (!txn.committing || from_coordinator) {
                    self.finish(client, End::Aborted);
                }
            }
            _ => {}
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn read_done(
        &mut self,
        client: usize,
        shard: usize,
        term: Term,
        session: Option<SessionId>,
        versions: Vec<Option<Version>>,
        rows: Vec<Row>,
        more: bool,
    ) {
        let Some(txn) = &mut self.clients[client].txn else {
            return;
        };
        // A second answer to a repeated read says the same under locks.
        if txn.committing || txn.at >= txn.plan.len() {
            return;
        }
        if txn.kind != Kind::Latest {
            if *txn.terms.entry(shard).or_insert(term) != term {
                return self.finish(client, End::Aborted);
            }
            let session = (term, session.expect("a session"));
            assert_eq!(*txn.sessions.entry(shard).or_insert(session), session);
        }
        match txn.plan[txn.at].clone() {
            Step::Get(_, _) if txn.kind == Kind::Latest => {
                if versions.len() != KEYS as usize {
                    return;
                }
                for (number, version) in versions.iter().enumerate() {
                    let seen = version.as_ref().map(|v| v.attempt);
                    txn.reads.push((key(shard, number as u64), seen));
                }
            }
            Step::Get(key, _) => {
                if shard_of(&key) != shard || versions.len() != 1 {
                    return;
                }
                let seen = versions[0].as_ref().map(|v| v.attempt);
                txn.reads.push((key, seen));
            }
            Step::Scan(scanned) => {
                if scanned != shard || !versions.is_empty() {
                    return;
                }
                for row in &rows {
                    let writer = AttemptId(u128::from_be_bytes(row.value[..].try_into().unwrap()));
                    txn.reads.push((row.key.clone(), Some(writer)));
                }
                assert!(!more || !rows.is_empty(), "a page without rows");
                if !more {
                    for number in 0..KEYS {
                        let key = key(shard, number);
                        if rows.iter().any(|r| r.key == key) {
                            continue;
                        }
                        // Absent, and never deleted so far: unwritten.
                        txn.reads.push((key, None));
                    }
                }
            }
        }
        txn.outstanding.clear();
        txn.at += 1;
        // Latest reads are single moments: only the first counts.
        if txn.kind == Kind::Latest {
            txn.at = txn.plan.len();
        }
        self.go_on(client);
    }

    pub(crate) fn client_step(&mut self) {
        let client = self.rng.below(self.clients.len() as u64) as usize;
        if self.rng.percent(10) {
            self.release(client);
        }
        let Some(txn) = &self.clients[client].txn else {
            if !self.healing {
                self.begin(client);
            }
            return;
        };
        let quit = !txn.committing && self.rng.percent(1);
        if quit && txn.kind != Kind::Latest {
            return self.finish(client, End::Aborted);
        }
        if txn.resend <= self.now {
            self.go_on(client);
        }
    }
}

fn anchor(txn: &Txn, shard: usize) -> Key {
    let written = txn.writes.keys().find(|k| shard_of(k) == shard);
    written.cloned().unwrap_or_else(|| key(shard, 0))
}
